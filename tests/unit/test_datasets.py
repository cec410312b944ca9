"""Readers of published data sets: small files in their forms, and the real ones where they are."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UseError
from core.recipe_answers import AnswerTask
from core.rows import INPUT
from pipelines.datasets import MODULES, DatasetFormat, dataset_rows
from pipelines.equations import value_of
from pipelines.inputs import _check
from pipelines.questions import Questions
from pipelines.row_work import Rejection
from tests.commands import command
from tests.unit.test_recorded import stage_of, write_lines

SHARED = os.environ.get("STILLHOUSE_SHARED")
DATA = Path(SHARED or "") / "data"
REAL = pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with data")


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def zipped(**texts):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return stream.getvalue()


def tarred(**texts):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return stream.getvalue()


def question(stem, *choices, key="B", numbers=False):
    labels = "1234" if numbers else "ABCDEFGH"
    listed = [{"label": labels[n], "text": text} for n, text in enumerate(choices)]
    return {"id": "x", "question": {"stem": stem, "choices": listed}, "answerKey": key}


RIDDLE = {"question": "Where?", "choices": ["lake", "dam"], "answer": "dam"}
NLI = {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"}
CRS = {
    "id": "R1",
    "title": "Dams",
    "summary": ["It is short.", "It is old."],
    "reports": {
        "section_title": "Dams",
        "paragraphs": ["They hold."],
        "subsections": [{"section_title": "Old", "paragraphs": ["They leak."], "subsections": []}],
    },
}
GAO = {
    "highlight": [{"section_title": "Found", "paragraphs": ["Leaks."], "subsections": []}],
    "report": [{"section_title": "Dams", "paragraphs": ["They hold."], "subsections": []}],
}
CHAT = (
    "The conversation between human and AI assistant.\n[|Human|] What is a dam?\n"
    "[|AI|] A wall.\n[|Human|] Who\nbuilds them?\n[|AI|] Beavers.\n[|Human|] "
)

RACE = {
    "article": "Beavers build dams.",
    "questions": ["What do they build?"],
    "options": [["lakes", "dams"]],
    "answers": ["B"],
}
DREAM = [
    ["M: Where is the dam?", "W: At the lake."],
    [{"question": "Where is it?", "choice": ["At sea.", "At the lake."], "answer": "At the lake."}],
    "4-1",
]

FILES = {
    "aqua": (
        "test.json",
        lines({"question": "2+3?", "options": ["A)4", "B)5", "C) 6 km"], "correct": "B"}),
        {"question": "2+3?", "choices": ["4", "5", "6 km"], "answer": "5"},
    ),
    "gsm8k": (
        "train.jsonl",
        lines({"question": "How many?", "answer": "It is <<2*521=1042>>.\n#### 1,042"}),
        {"question": "How many?", "answer": "1042", "solution": "It is <<2*521=1042>>."},
    ),
    "multiarith": (
        "MultiArith.json",
        json.dumps([{"iIndex": 0, "sQuestion": " How many? ", "lSolutions": [9.0]}], indent=1),
        {"question": "How many?", "answer": "9"},
    ),
    "svamp": (
        "SVAMP.json",
        json.dumps([{"Body": "He has 2", "Question": "How many?", "Answer": 2.5}]),
        {"question": "He has 2. How many?", "answer": "2.5"},
    ),
    "anli": (
        "train.jsonl",
        lines({"uid": "1", "context": "It rains.", "hypothesis": "It is wet.", "label": "e"}),
        NLI,
    ),
    "conjnli": (
        "conj_dev.tsv",
        'Premise\tHypothesis\tLabel\nIt "rains.\tIt is wet.\tentailment\n',
        NLI | {"premise": 'It "rains.'},
    ),
    "control": (
        "dev.jsonl",
        lines({"uid": "1", "premise": "It rains.", "hypothesis": "It is wet.", "label": "e"}),
        NLI,
    ),
    "help": (
        "pmb_train_v1.0.tsv",
        "\tgold_label\tori_sentence\tnew_sentence\n0\tentailment\tIt rains.\tIt is wet.\n",
        NLI,
    ),
    "arc": ("ARC.jsonl", lines(question("Where?", "lake", "dam", key="2", numbers=True)), RIDDLE),
    "commonsense_qa": ("dev.jsonl", lines(question("Where?", "lake", "dam")), RIDDLE),
    "qasc": ("dev.jsonl", lines(question("Where?", "lake", "dam")), RIDDLE),
    "riddlesense": (
        "rs_test.jsonl",
        lines({**question("Where?", "lake", "dam"), "answerKey": ""}),
        {key: RIDDLE[key] for key in ("question", "choices")},
    ),
    "openbookqa": ("train.jsonl", lines(question("Where?", "lake", "dam")), RIDDLE),
    "tinyllm": (
        "obqa_train.json",
        json.dumps([{"id": "7-980", **RIDDLE}], indent=4),
        {"id": "7-980", **RIDDLE},
    ),
    "piqa": (
        "valid.jsonl",
        lines({"goal": "Where?", "sol1": "lake", "sol2": "dam", "label": 1}),
        RIDDLE,
    ),
    "piqa_dev": (
        "physicaliqa-train-dev.zip",
        zipped(
            **{
                "physicaliqa-train-dev/train.jsonl": '{"goal": "When?"}\n',
                "physicaliqa-train-dev/dev.jsonl": lines(
                    {"goal": "Where?", "sol1": "lake", "sol2": "dam"}
                ),
                "physicaliqa-train-dev/dev-labels.lst": "1\n",
            }
        ),
        RIDDLE,
    ),
    "pubmedqa": (
        "ori_pqal.json",
        json.dumps(
            {
                "21645374": {
                    "QUESTION": "Is it wet?",
                    "CONTEXTS": ["It \n rains.", "It pours."],
                    "LONG_ANSWER": "It is.",
                    "final_decision": "yes",
                }
            },
            indent=2,
        ),
        {"question": "It rains.\nIt pours.\nIs it wet?", "choices": ["yes", "no", "maybe"]}
        | {"answer": "yes"},
    ),
    "bioasq": (
        "training11b.json",
        json.dumps(
            {
                "questions": [
                    {
                        "type": "yesno",
                        "body": "Is it wet?",
                        "snippets": [{"text": "It rains."}],
                        "exact_answer": "Yes",
                    }
                ]
            }
        ),
        {"question": "It rains.\nIs it wet?", "choices": ["yes", "no"], "answer": "yes"},
    ),
    "chain_of_density": (
        "test.jsonl",
        lines({"article": "A dam.", "highlights": " Dam. ", "prediction": ["x"]}),
        {"document": "A dam.", "summary": "Dam."},
    ),
    "govreport": (
        "gov-report.tar.gz",
        tarred(**{"gov-report/crs/R1.json": json.dumps(CRS).encode(), "README": b"x"}),
        {
            "document": "Dams\n\nThey hold.\n\nOld\n\nThey leak.",
            "summary": "It is short.\n\nIt is old.",
        },
    ),
    "bbc_news": (
        "bbc-fulltext.zip",
        zipped(
            **{"bbc/README.TXT": b"x", "bbc/tech/1.txt": "Dam\n\nA caf\xe9.\n".encode("latin-1")}
        ),
        {"document": "A caf\xe9.", "headline": "Dam", "topic": "tech"},
    ),
    "mmlu": (
        "test.tar",
        tarred(**{"test/high_school_physics_test.csv": b'"Where, then?",lake,dam,sea,sky,B\n'}),
        {
            "question": "Where, then?",
            "choices": ["lake", "dam", "sea", "sky"],
            "answer": "dam",
            "subject": "high school physics",
        },
    ),
    "race": (
        "dev.zip",
        zipped(**{"high/1.txt": json.dumps(RACE)}),
        {
            "question": "Beavers build dams.\n\nWhat do they build?",
            "choices": ["lakes", "dams"],
            "answer": "dams",
        },
    ),
    "dream": (
        "dev.json",
        json.dumps([DREAM]),
        {
            "question": "M: Where is the dam?\nW: At the lake.\n\nWhere is it?",
            "choices": ["At sea.", "At the lake."],
            "answer": "At the lake.",
        },
    ),
    "baize_quora": (
        "quora_chat_data.json",
        json.dumps([{"topic": "dams", "input": CHAT}]),
        {"turns": ["What is a dam?", "Who\nbuilds them?"]},
    ),
    "baize_alpaca": (
        "alpaca_chat_data.json",
        json.dumps([{"topic": "dams", "input": CHAT}]),
        {"turns": ["What is a dam?"]},
    ),
}


def rows_of(name, file):
    return [row for _, row in dataset_rows(name, file)]


def written(folder, name):
    file_name, content, _ = FILES[name]
    file = folder / file_name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_every_format_has_a_reader():
    assert {name for names in MODULES.values() for name in names} == set(get_args(DatasetFormat))
    assert set(FILES) == set(get_args(DatasetFormat))


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_the_authors_form_becomes_rows(tmp_path, name):
    assert rows_of(name, written(tmp_path, name)) == [FILES[name][2]]


def test_both_kinds_of_government_reports_and_rows_of_them(tmp_path):
    file = tmp_path / "reports.zip"
    file.write_bytes(
        zipped(**{"gao/1.json": json.dumps(GAO), "gao/2.json": "{", "gao/3.json": "[]"})
    )
    found = rows_of("govreport", file)
    assert found[0] == {"document": "Dams\n\nThey hold.", "summary": "Found\n\nLeaks."}
    assert [row.reason for row in found[1:]] == ["not-json", "other-format"]
    table = pa.table({"report": ["They hold."], "summary": ["Leaks."]})
    pq.write_table(table, tmp_path / "test.parquet")
    plain = {"document": "They hold.", "summary": "Leaks."}
    assert rows_of("govreport", tmp_path / "test.parquet") == [plain]


BROKEN = [
    "{}",
    "[]",
    "null",
    "3",
    '{"question": 3}',
    '{"question": {}}',
    '{"input": " "}',
    "{",
    '"x"',
]


WHOLE = ("bioasq", "pubmedqa")
"""Sets whose authors write one JSON object."""


@pytest.mark.parametrize(
    "name",
    [n for n in FILES if FILES[n][0].endswith((".jsonl", ".json")) and n not in WHOLE],
)
def test_a_record_in_another_form_is_rejected_and_the_rest_is_read(tmp_path, name):
    file = tmp_path / "rows.jsonl"
    record = FILES[name][1]
    sound = json.dumps(json.loads(record)[0]) if record.startswith("[") else record.strip()
    lines = [sound, *BROKEN, sound]
    # A record that is a list itself stands in one.
    listed = f"[{','.join(line for line in lines if line != '{')}]"
    file.write_text(listed if sound.startswith("[") else "".join(f"{line}\n" for line in lines))
    found = rows_of(name, file)
    assert [found[0], found[-1]] == [FILES[name][2]] * 2
    assert all(isinstance(row, Rejection) for row in found[1:-1])
    assert {row.reason for row in found[1:-1]} <= {"other-format", "not-json"}


def test_a_file_of_an_archive_in_another_form_is_rejected_and_the_rest_is_read(tmp_path):
    texts = [json.dumps(RACE), *BROKEN, json.dumps(RACE | {"answers": []})]
    members = {f"{number:02}.txt": text.encode() for number, text in enumerate(texts)}
    table = b'What?,a,b,c,d,E\nWhat?,a,b,c,B\n\nWhat?,a,b,c,d,"D"\n'
    file = tmp_path / "all.zip"
    file.write_bytes(zipped(**members, **{"law_dev.csv": table}))
    first, *others = rows_of("race", file)
    assert first == FILES["race"][2]
    assert [row.reason for row in others] == ["other-format"] * (len(BROKEN) + 1)
    *faults, last = rows_of("mmlu", file)
    assert (last["subject"], last["answer"]) == ("law", "d")
    assert [row.reason for row in faults] == ["other-format"] * 3


@REAL
def test_the_57_subjects_of_mmlu_are_read_whole(tmp_path):
    for part, number in (("dev", 5 * 57), ("test", 14_042)):
        file = tmp_path / f"{part}.tar"
        with tarfile.open(file, "w") as archive:
            archive.add(DATA / "mmlu" / part, part)
        found = rows_of("mmlu", file)
        assert len(found) == number
        assert not any(isinstance(row, Rejection) for row in found)
        assert len({row["subject"] for row in found}) == 57


def test_biomedical_records_are_read_as_rows_too_and_others_are_rejected(tmp_path):
    rows = {
        "bioasq": [
            json.loads(FILES["bioasq"][1])["questions"][0],
            {"type": "factoid", "body": "Which?", "exact_answer": ["dam"]},
        ],
        "pubmedqa": [
            {
                "question": "Is it wet?",
                "context": {"contexts": ["It rains.", "It pours."]},
                "final_decision": "yes",
            },
            {"question": "Is it wet?"},
        ],
    }
    for name, records in rows.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text(lines(*records))
        found = rows_of(name, file)
        assert found[0] == FILES[name][2]
        assert found[1].reason == "other-format"
    assert "it is of type factoid" in rows_of("bioasq", tmp_path / "bioasq.jsonl")[1].detail


def test_piqa_without_a_label_for_each_row_is_told_at_once(tmp_path):
    file = tmp_path / "physicaliqa-train-dev.zip"
    file.write_bytes(FILES["piqa_dev"][1])
    with pytest.raises(UseError, match=r"it has not train.jsonl with a label for each line"):
        rows_of("piqa", file)


def test_what_is_no_list_and_no_archive_is_told_at_once(tmp_path):
    file = tmp_path / "MultiArith.json"
    file.write_text("[{")
    with pytest.raises(UseError, match="no list in JSON"):
        rows_of("multiarith", file)
    file = tmp_path / "bbc.zip"
    file.write_text("nothing")
    with pytest.raises(UseError, match="cannot be read"):
        rows_of("bbc_news", file)


@pytest.mark.parametrize(
    ("equation", "value"),
    [("( 10.0 * 45.0 )", 450), ("( 10.0 - ( 6.0 + 3.0 ) )", 1), ("-3/2", -1.5), ("7", 7)],
)
def test_the_value_of_an_equation(equation, value):
    assert value_of(equation) == value


@pytest.mark.parametrize(
    "equation", ["", "1/0", "x", "2**9", "__import__('os')", "1;2", "(" * 500, "1" * 2000, "'a'*9"]
)
def test_what_is_no_equation(equation):
    with pytest.raises(ValueError):
        value_of(equation)


REAL_FILES = [
    ("aqua", "aqua/test.json", "multiple_choice", 254, 254),
    ("gsm8k", "gsm8k/test.jsonl", "math", 1319, 1319),
    ("svamp", "svamp_palm540b/svamp_test.json", "math", 200, 200),
    ("tinyllm", "obqa/test.jsonl", "multiple_choice", 500, 500),
    ("arc", "arc_easy/ARC-Easy-Dev.jsonl", "multiple_choice", 570, 570),
    ("help", "help/leskexppmb_or.tsv", "nli", 438, 438),
    ("help", "help/leskexppmb_and.tsv", "nli", 6076, 6076),
]


@REAL
@pytest.mark.parametrize(("name", "file", "kind", "rows", "judged"), REAL_FILES)
def test_every_row_of_a_real_file_can_be_asked_and_judged(name, file, kind, rows, judged):
    found = rows_of(name, DATA / file)
    assert len(found) == rows
    assert not any(isinstance(row, Rejection) for row in found)
    questions = Questions(AnswerTask.model_validate({"kind": kind, "prompt": PLAIN[kind]}))
    asked = [questions.to_be_judged(_check(n, row, {})) for n, row in enumerate(found)]
    sound = [question for question in asked if not isinstance(question, Rejection)]
    assert len(sound) == judged
    if kind == "math":
        for row, question in zip(found, sound, strict=True):
            assert float(question.right.text) == pytest.approx(float(row["answer"]))
    if kind == "multiple_choice":
        for row, question in zip(found, sound, strict=True):
            assert question.choices[question.right.choice] == row["answer"]


PLAIN = {
    "math": "{{ question }}",
    "nli": "{{ premise }} {{ hypothesis }}",
    "multiple_choice": "{{ question }} {{ choices | lettered }}",
}

RECIPE = """\
name: sums
method: teacher_data
inputs: {{file: {file}, format: {format}}}
teachers: {{one: {{backend: recorded, model: one, files: [one.jsonl]}}}}
ask: {{one: {{prompt: "{{{{ question }}}}"}}}}
"""


def test_a_recipe_reads_a_data_set_and_draws_some_of_its_rows(tmp_path):
    rows = [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(40)]
    (tmp_path / "train.jsonl").write_text(lines({"question": "x"}, *rows))
    write_lines(tmp_path / "one.jsonl", [{"prompt": f"{n}?", "text": "x"} for n in range(40)])
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(file="train.jsonl", format="gsm8k"))

    def ask(limit):
        said = ["--set", f"limit={limit}"] if limit else []
        done = command(tmp_path, "run", "recipe.yaml", "--run", "run", "--update", *said)
        assert done.returncode == 0, done.stderr
        folder = stage_of(tmp_path, "inputs")
        found = folder.read()
        assert found.schema.equals(INPUT)
        assert folder.manifest().rejected == {"other-format": 1}
        return [json.loads(row["fields"])["answer"] for row in found.to_pylist()]

    twelve, twenty, every = ask(12), ask(20), ask(None)
    assert (len(twelve), len(twenty), len(every)) == (12, 20, 40)
    assert set(twelve) < set(twenty) < set(every)
    # In the order of the file, and not its begin.
    assert twelve == sorted(twelve, key=int) != [str(n) for n in range(12)]
