"""Rows from people and from teachers: what is used, what is rejected, and why."""

import json

import pyarrow as pa
import pytest

from core.recipe import Task
from core.rows import TASK as TASK_ROWS
from pipelines.item_ways import Item, NotWritten, first_line, read_json_item, read_own_item
from pipelines.row_work import rejected_table
from pipelines.selection import judge
from pipelines.tasks import LONGEST_QUESTION, first_of_each_subject, parse_rows, published_rows
from pipelines.writing import plan_items

TASK = Task(
    instruction="Say which desk.",
    choices=["business", "sports"],
    examples="examples.jsonl",
    evaluation="evaluation.jsonl",
)


OWN = TASK.model_copy(update={"choices": None})
ANSWERS = [{"answer": 0}, {"answer": 1}]


def reasons(rejections) -> list[str]:
    return [rejection.reason for _, rejection in rejections]


def test_good_lines_become_rows_and_bad_ones_are_rejected_with_their_number(tmp_path):
    file = tmp_path / "rows.jsonl"
    lines = [
        b'{"question": " Who won? ", "answer": "sports", "difficulty": "plain"}',
        b'{"question": "caf\xff", "answer": "sports"}',
        b"not json",
        b'["a list"]',
        b'{"answer": "sports"}',
        b'{"question": "   ", "answer": "sports"}',
        b'{"question": "Rates rise", "answer": "weather"}',
        b"",
        b'{"question": "Who won?", "answer": "business"}',
        json.dumps({"question": "x" * (LONGEST_QUESTION + 1), "answer": "sports"}).encode(),
        b'{"question": "\\ud800 Rates rise", "answer": "business"}',
        b"[" * 100_000,
        b'{"question": "Rates rise", "answer": "business", "year": ' + b"9" * 5_000 + b"}",
    ]
    file.write_bytes(b"\r\n".join(lines))
    rows, rejections = parse_rows(file, TASK)
    assert [(row["question"], row["answer"]) for row in rows] == [
        ("Who won?", 1),
        ("\\ud800 Rates rise", 0),
    ]
    assert rows[0]["difficulty"] == "plain"
    assert reasons(rejections) == [
        "not-utf8",
        "not-json",
        "not-an-object",
        "no-question",
        "no-question",
        "unknown-answer",
        "duplicate",
        "too-long",
        "not-json",
        "not-json",
    ]
    assert "line 2" in rejections[0][1].detail
    assert "line 9" in rejections[6][1].detail
    table = rejected_table("examples", rejections)
    assert table.num_rows == len(rejections)
    assert "\\xff" in table["original"][0].as_py()


def test_half_a_surrogate_pair_in_a_difficulty_still_goes_into_the_table(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"question": "Who won?", "answer": "sports", "difficulty": " \\udfff hard"}')
    rows, rejections = parse_rows(file, TASK)
    assert pa.Table.from_pylist(rows, schema=TASK_ROWS)["difficulty"].to_pylist() == [
        "\\udfff hard"
    ]
    assert not rejections


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    plain, marked = tmp_path / "plain.jsonl", tmp_path / "marked.jsonl"
    lines = b'{"question": "Who won?", "answer": "sports"}\nnot json\n'
    plain.write_bytes(lines)
    marked.write_bytes(b"\xef\xbb\xbf" + lines)
    assert parse_rows(marked, TASK) == parse_rows(plain, TASK)
    marked.write_bytes(b"\xef\xbb\xbf\r\n" + lines)
    assert len(parse_rows(marked, TASK)[1]) == 1, "a line with nothing but the mark is empty"
    marked.write_bytes(lines + b"\xef\xbb\xbf" + lines)
    assert reasons(parse_rows(marked, TASK)[1]) == ["not-json"] * 3, "elsewhere it is a mistake"


def test_equal_content_has_equal_ids_whatever_the_order(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text('{"question": "Who won?", "answer": "sports"}\n')
    second.write_text('\n{"answer": "sports", "question": "Who won?"}')
    assert parse_rows(first, TASK)[0][0]["id"] == parse_rows(second, TASK)[0][0]["id"]


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        (" Team wins\n\nNews desk: x", "stop", "Team wins"),
        ("\n  \n", "stop", "empty"),
        ("a headline without an end", "length", "cut"),
    ],
)
def test_a_written_question_is_its_first_line(text, finish, expected):
    assert read(first_line, text, finish) == expected


def read(reader, *written):
    """What a reader finds, or the reason why it finds nothing."""
    try:
        return reader(*written)
    except NotWritten as error:
        return error.rejection.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"answer": "sports", "question": " Team wins "}', (1, "Team wins")),
        ('{"answer": "sports", "question": "Team', "unparseable"),
        ('{"answer": "weather", "question": "Rain"}', "unparseable"),
        ('{"answer": ["sports"], "question": "Rain"}', "unparseable"),
        ('{"answer": "sports", "question": 3}', "unparseable"),
        ('{"answer": "sports", "question": "  "}', "empty"),
        ("[]", "unparseable"),
        ("", "unparseable"),
    ],
)
def test_a_json_item_is_taken_apart_or_rejected(text, expected):
    assert read(read_json_item, text, TASK.choices) == expected


def item(question="Where?", choices=("lake", "dam "), answer="dam", **more):
    return json.dumps({"question": question, "choices": choices, "answer": answer} | more)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (item(), Item("Where?", ["lake", "dam"], 1)),
        (item(answer="A", year=3), Item("Where?", ["lake", "dam"], 0)),
        (item(answer="C"), "unparseable"),
        (item(answer=1), "unparseable"),
        (item(answer="sea"), "unparseable"),
        (item(choices=["lake", 3]), "unparseable"),
        (item(choices="lake, dam"), "unparseable"),
        (item(choices=["dam"]), "too-few-choices"),
        (item(choices=["dam", "Dam."]), "duplicate-choices"),
        (item(choices=["dam", ""]), "missing-choice"),
        (item(question=" "), "empty"),
        (f"Here it is: {item()}", "unparseable"),
        ("[" * 100_000, "unparseable"),
    ],
)
def test_an_item_with_choices_of_its_own_is_taken_apart_or_rejected(text, expected):
    assert read(read_own_item, text) == expected


def test_rows_may_bring_choices_and_subjects_of_their_own(tmp_path):
    file = tmp_path / "rows.jsonl"
    lines = [
        {"question": " Where? ", "choices": ["lake", " dam"], "answer": "dam", "subject": "water"},
        {"question": "Where?", "choices": ["lake", "dam"], "answer": "dam", "subject": "beavers"},
        {"question": "Where?", "choices": ["dam", "lake"], "answer": "dam", "subject": "water"},
        {"question": "Where?", "choices": ["lake", "dam"], "answer": "lake", "subject": "water"},
        {"question": "Where?", "choices": ["lake", "dam"], "answer": "sea"},
        {"question": "Where?", "choices": ["lake", "lake"], "answer": "lake"},
        {"question": "Where?", "choices": "lake", "answer": "lake"},
        {"question": "Where?", "choices": [str(n) for n in range(27)], "answer": "3"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    rows, rejections = parse_rows(file, OWN)
    assert [(row["subject"], row["answer"]) for row in rows] == [
        *(("water", 1), ("beavers", 1), ("water", 0))
    ]
    assert reasons(rejections) == [
        *("duplicate", "unknown-answer", "duplicate-choices", "no-choices", "too-many-choices")
    ]
    assert first_of_each_subject(rows, 1) == rows[:2]
    # Who publishes a set counts its rows, equal ones too.
    file = tmp_path / "riddles.jsonl"
    labels = [{"label": "A", "text": "lake"}, {"label": "B", "text": "lake"}]
    labels.append({"label": "C", "text": "dam"})
    riddle = {"question": {"stem": "Where?", "choices": labels}, "answerKey": "B"}
    file.write_text("\n".join(map(json.dumps, [riddle, riddle, {"question": "Where?"}])))
    rows, rejections = published_rows("riddlesense", file)
    assert [row["answer"] for row in rows] == [0, 0]
    assert len({row["id"] for row in rows}) == 2
    assert reasons(rejections) == ["other-format"]


def scored(intended, logprobs) -> dict:
    return {"intended": intended, "choices": TASK.choices, "logprobs": logprobs}


def test_selection_wants_agreement_and_confidence():
    # softmax([0, ln 3]) = (0.25, 0.75)
    row = scored(1, [0.0, 1.0986123])
    assert judge(row, "logprobs", agree=True, min_confidence=0.74) is None
    assert judge(row, "logprobs", agree=True, min_confidence=0.76).reason == "unsure"
    other = scored(0, [0.0, 1.0986123])
    assert judge(other, "logprobs", agree=True, min_confidence=0.0).reason == "disagreement"
    assert judge(other, "logprobs", agree=False, min_confidence=0.0) is None


def test_planned_items_balance_choices_and_orders_and_grow_at_the_end():
    plan = list(plan_items(20, ANSWERS, 5, parts={"seed": 0}))
    assert [row["answer"] for row in plan].count(0) == 10
    assert {(row["answer"], row["order"]) for row in plan} == {
        (answer, order) for answer in range(2) for order in range(5)
    }
    assert len({row["id"] for row in plan}) == 20
    assert plan == list(plan_items(30, ANSWERS, 5, parts={"seed": 0}))[:20]
    other = list(plan_items(20, ANSWERS, 5, parts={"seed": 1}))
    assert not {row["id"] for row in plan} & {row["id"] for row in other}
