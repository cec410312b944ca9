"""Items as a teacher is asked for them, and whatever it answers instead."""

import asyncio
import json
import random
from collections import Counter

import pyarrow as pa
import pytest

from core.recipe import Task
from core.rows import GENERATED
from core.teacher import Completion, Sampling, Usage
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.item_ways import Decomposed, NotWritten, OwnJson, Scribe, way_of
from pipelines.row_work import Rejection, rejected_table
from pipelines.writing import WriteItem, plan_items
from tests.fuzzed_rows import LINES, SMALL, VALUES

TASK = Task(
    instruction="Questions about {subject}.",
    question_name="Question",
    answer_name="Answer",
    examples="x",
    evaluation="y",
)
EXAMPLES = [
    {"question": q, "choices": choices, "answer": answer, "subject": subject}
    for q, choices, answer, subject in [
        ("Where do fish live?", ["sea", "sky", "wood"], 0, "animals"),
        ("What is 2+3?", ["4", "5", "6"], 1, "sums"),
        ("Where do deer live?", ["sea", "sky", "wood"], 2, "animals"),
    ]
]
PROMPTS = FewshotPrompts(TASK, EXAMPLES)


class Dictated:
    """An engine that writes given texts one after the other, and remembers what it was asked."""

    def __init__(self, *texts, finish="stop"):
        self.texts, self.finish, self.asked = list(texts), finish, []

    async def complete(self, prompt, sampling):
        self.asked.append(prompt)
        return Completion(self.texts.pop(0), Usage(1, 10, 0, 3), self.finish)


def written(way, engine, row, subject="animals"):
    work = WriteItem(PROMPTS, engine, "large", "some", way, Sampling(max_tokens=9))
    return asyncio.run(work({"id": "row", "subject": subject, **row}))


def test_an_item_is_written_in_three_steps():
    engine = Dictated(
        " What do cows eat?\nQ", " grass\n\nQuestion:", " stones", " Grass.", " nails"
    )
    item = written(Decomposed(3), engine, {"order": 1})
    assert item["question"] == "What do cows eat?"
    assert item["choices"][item["intended"]] == "grass"
    assert sorted(item["choices"]) == ["grass", "nails", "stones"], "the right one is no wrong one"
    assert item["subject"] == "animals"
    assert item["usage"]["requests"] == 5
    question, right, *wrong = engine.asked
    assert question == (
        "Questions about animals.\n\n"
        "Question: Where do deer live?\n\nQuestion: Where do fish live?\n\nQuestion:"
    )
    assert right.endswith(
        "Question: Where do fish live?\nAnswer: sea\n\nQuestion: What do cows eat?\nAnswer:"
    )
    asked = "Question: What do cows eat?\nRight answer: grass\nWrong answer:"
    assert all(prompt.endswith(asked) for prompt in wrong)
    shown = "Question: Where do deer live?\nRight answer: wood\nWrong answer: {}\n"
    assert [shown.format("sea") in prompt for prompt in wrong] == [True, False, True]
    assert [shown.format("sky") in prompt for prompt in wrong] == [False, True, False]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["\n"], "empty"),
        (["What?", " \n "], "empty"),
        (["What?", "grass", "stones", ""], "empty"),
        (["What?", "grass", "Grass", "grass."], "too-few-choices"),
    ],
)
def test_a_step_that_goes_wrong_is_told(texts, reason):
    found = written(Decomposed(2), Dictated(*texts), {"order": 0})
    assert isinstance(found, Rejection)
    assert found.reason == reason


def test_a_step_that_is_cut_and_one_that_failed():
    assert written(Decomposed(1), Dictated("What", finish="length"), {"order": 0}).reason == "cut"

    class Broken:
        async def complete(self, prompt, sampling):
            return Completion("", Usage(), "error", "it has 9 tokens", "too-long")

    assert written(Decomposed(1), Broken(), {"order": 0}).reason == "too-long"


def test_json_is_shown_with_as_many_wrong_answers_as_are_wanted():
    sound = '{"question": "What do cows eat?", "choices": ["grass", "nails"], "answer": "grass"}'
    engine = Dictated(sound)
    item = written(OwnJson(1), engine, {"order": 0})
    assert (item["choices"], item["intended"]) == (["grass", "nails"], 0)
    _, first, second = engine.asked[0].removesuffix("\n").rsplit("\n", 2)
    assert json.loads(first)["choices"] == ["sea", "sky"]
    assert json.loads(second) == {
        "question": "Where do deer live?",
        "choices": ["sea", "wood"],
        "answer": "wood",
    }


def test_subjects_take_turns_and_each_is_shown_its_own_examples():
    turns = [{"subject": "animals"}, {"subject": "sums"}]
    plan = list(plan_items(8, turns, 2, {}))
    assert [row["subject"] for row in plan] == ["animals", "sums"] * 4
    assert [row["order"] for row in plan] == [0, 0, 1, 1, 0, 0, 1, 1]
    prompt = PROMPTS.about("sums").write_own_question(0)
    assert prompt == "Questions about sums.\n\nQuestion: What is 2+3?\n\nQuestion:"
    assert PROMPTS.about(None) == PROMPTS.about("animals")
    assert PROMPTS.about("rivers").write_own_question(0) == "Questions about rivers.\n\nQuestion:"


SOUND = {"question": "Where?", "choices": ["lake", "dam", "sea"], "answer": "dam"}


def malformed(number, seed):
    """What teachers write for JSON: whole, cut, garbled, with wrong values, or anything else."""
    draw = random.Random(seed)
    for _ in range(number):
        kind = draw.randrange(5)
        text = json.dumps(SOUND)
        if kind == 1:
            text = text[: draw.randrange(len(text))]
        elif kind == 2:
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice('"{}[]:,\\\x00é\ud800 ') + text[place + 1 :]
        elif kind == 3:
            values = [*VALUES, *SMALL, ["dam"], ["dam", 3], {"A": "dam"}, "B", "Dam."]
            text = json.dumps(SOUND | {draw.choice(list(SOUND)): draw.choice(values)})
        elif kind == 4:
            text = draw.choice([*LINES, *(one.encode("utf-8", "replace") for one in SMALL)])
            text = text.decode("utf-8", "replace")
        yield text


@pytest.mark.parametrize("way", ["json", "decomposed"])
def test_five_hundred_malformed_outputs_are_counted_and_none_crashes(way):
    texts = list(malformed(500, seed=0))
    draw = random.Random(1)
    items, rejections = [], []
    for number, text in enumerate(texts):
        steps = [text] if way == "json" else [text, *draw.sample(texts, 4)]
        found = written(way_of(way, 3), Dictated(*steps), {"id": str(number), "order": 0})
        if isinstance(found, Rejection):
            rejections.append((str(number), found))
        else:
            items.append(found)
    table = pa.Table.from_pylist(items, schema=GENERATED)
    rejected = rejected_table("write", rejections)
    assert table.num_rows + rejected.num_rows == 500
    reasons = Counter(rejected["reason"].to_pylist())
    assert all(0 <= item["intended"] < len(item["choices"]) >= 2 for item in items)
    if way == "json":
        assert reasons["unparseable"] > 150
        assert {"empty", "missing-choice", "too-few-choices"} >= set(reasons) - {"unparseable"}
        assert len(items) > 80, "those that are whole"
    else:
        assert set(reasons) <= {"empty", "too-few-choices"}
        assert min(reasons.values()) > 0
        assert len(items) > 300, "free text has hardly a form to miss"


def test_a_scribe_adds_up_what_it_was_told():
    scribe = Scribe(Dictated("one", "two"), Sampling(max_tokens=3))
    assert asyncio.run(scribe.line("x")) + asyncio.run(scribe.text("y")) == "onetwo"
    assert scribe.usage == Usage(2, 20, 0, 6)
    with pytest.raises(NotWritten):
        asyncio.run(Scribe(Dictated(" "), Sampling(max_tokens=3)).line("x"))
