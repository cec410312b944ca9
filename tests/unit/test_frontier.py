"""Frontier distillation: from recorded answers to training rows, and teachers judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import UseError
from core.identity import content_id
from core.recipe_answers import AnswerTask
from core.recipe_file import load_recipe
from core.rows import ANSWERED, INPUT, TEXT_TRAINING, TRAINING, WRITTEN
from core.run import Folder, Manifest, Run, StageFolder
from pipelines.answered_rows import answered_rows
from pipelines.extraction import _Extraction
from pipelines.row_work import rejected_table
from stillhouse.both_sides import teacher_answers
from stillhouse.methods import lay_out, recipe_model
from stillhouse.stages import fingerprints
from tests.commands import command
from tests.unit.test_recorded import stage_of, write_lines

ROOT = Path(__file__).parents[2]
SHARED = os.environ.get("STILLHOUSE_SHARED")

RECIPE = """\
name: places
method: frontier
shard_rows: 7
inputs: {file: train.jsonl}
evaluation: {file: test.jsonl, columns: {question: asked}}
teachers:
  palm: {backend: recorded, model: palm-540b, files: [palm.jsonl]}
  flan: {backend: recorded, model: flan-t5-xl, files: [flan.jsonl]}
ask:
  palm: {prompt: "Think: {{ question }}", samples: 3}
  flan: {prompt: "{{ question }}"}
task:
  kind: choices
  choices_field: choices
  prompt: "{{ question }}"
  gold: answer
  weight: agreement
  answer:
    cut_at: ["Q:"]
    pattern: 'So (.*)'
    rationale_pattern: '^(.*?)So'
students:
  minilm: {head: choices, model: embedded://all-minilm-l6-v2}
  writer:
    family: causal
    model: embedded://smollm2-135m-instruct
    train: {objective: {kind: sequence, rationale_weights: {palm: 1.0, flan: 0.5}}}
"""
PLACES = ["lake", "dam", "sea"]


def choices_of(number):
    return PLACES[: 2 + number % 2]


def write_files(folder):
    """30 questions: palm is right but for every fifth, and hardly sure of every third."""
    numbers = range(30)
    train = [
        {"question": f"Where {n}?", "choices": choices_of(n), "answer": PLACES[n % 2]}
        for n in numbers
    ]
    test = [
        {"asked": f"When {n}?", "choices": choices_of(n), "answer": PLACES[n % 2]}
        for n in range(10)
    ]
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "test.jsonl", [*test, {"asked": "When?", "choices": PLACES}])
    palm = []
    for n in numbers:
        said = PLACES[(n + (n % 5 == 0)) % 2]
        texts = [f"Fish {n}. So {said}. Q: So sea", f"Fish. So {said}", "So what"]
        if n % 3 == 0:
            texts = ["I do not know.", *texts[:1], "So Lisbon"]
        palm += [{"prompt": f"Think: Where {n}?", "text": text} for text in texts]
    for n in range(10):
        for text in (f"So {PLACES[(n + (n < 2)) % 2]}", "Who knows", "So Lisbon"):
            palm.append({"prompt": f"Think: When {n}?", "text": text})
    write_lines(folder / "palm.jsonl", palm)
    flan = [{"prompt": f"Where {n}?", "text": f"Salt. So {PLACES[n % 2]}!"} for n in numbers if n]
    flan += [{"prompt": f"When {n}?", "text": "Nobody can tell."} for n in range(4)]
    write_lines(folder / "flan.jsonl", flan)
    (folder / "recipe.yaml").write_text(RECIPE)


@pytest.fixture
def run(tmp_path):
    write_files(tmp_path)

    def run(*arguments):
        done = command(tmp_path, "run", "recipe.yaml", "--run", "run", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder = tmp_path
    return run


def rows_by_question(folder, stage):
    asked = {
        row["id"]: json.loads(row["fields"])["question"]
        for row in stage_of(folder, "inputs").read().to_pylist()
    }
    found = {question: [] for question in asked.values()}
    for row in stage_of(folder, stage).read().to_pylist():
        question = row["question"] if "question" in row else row["messages"][-1]["content"]
        found[question].append(row)
    return found


def test_answers_become_rows_for_students_that_choose_and_that_write(run):
    said = run("--until", "extract")
    run("--until", "extract-text")
    assert not (run.folder / "run" / "logs" / "ray").exists(), "no Ray was started"
    choosing = rows_by_question(run.folder, "extract")
    writing = rows_by_question(run.folder, "extract-text")
    assert stage_of(run.folder, "extract").read().schema.equals(TRAINING)
    assert stage_of(run.folder, "extract-text").read().schema.equals(TEXT_TRAINING)
    for n in range(30):
        right, wrong = n % 2, (n + 1) % 2
        palm, share = (wrong if n % 5 == 0 else right), 1 / 3 if n % 3 == 0 else 2 / 3
        votes = {palm: share}
        if n:  # flan was not recorded for the first
            votes[right] = votes.get(right, 0.0) + 1
        rows = choosing[f"Where {n}?"]
        assert {row["answer"]: row["weight"] for row in rows} == pytest.approx(votes)
        assert all(row["choices"] == choices_of(n) and row["logits"] is None for row in rows)
        texts = writing[f"Where {n}?"]
        assert {PLACES.index(row["answer"]): row["weight"] for row in texts} == pytest.approx(votes)
        assert all([m["role"] for m in row["messages"]] == ["user"] for row in texts)
        why = {
            (r["teacher"], r["text"]): PLACES.index(row["answer"])
            for row in texts
            for r in row["rationales"]
        }
        assert why == {("palm", f"Fish {n}."): palm, **({("flan", "Salt."): right} if n else {})}
        if n and palm == right:
            assert [row["source"] for row in rows] == ["palm+flan"]
    manifest = stage_of(run.folder, "extract").manifest()
    # Of palm's three samples one is outside the choices, and of every third row one says nothing.
    assert manifest.rejected == {"outside-choices": 30, "unparsed": 10}
    assert manifest.facts == {"answers": 119, "read": 79, "outvoted": 0}
    rejected = stage_of(run.folder, "extract").read_rejected().to_pylist()
    assert {row["teacher"] for row in rejected} == {"palm"}
    assert len({row["id"] for row in rejected}) == 40
    assert "extract" in said
    assert "119" in said


def test_teachers_are_judged_and_what_they_did_not_answer_is_told(run):
    said = run("--until", "predict-teachers")
    stage = stage_of(run.folder, "predict-teachers")
    assert stage.read().schema.equals(WRITTEN)
    facts = stage.manifest().facts
    # Two of ten are wrong; flan wrote four texts without an answer, and six questions it never saw.
    assert facts == {
        "accuracy": {"palm": 0.8, "flan": 0.0},
        "unparsed": {"palm": 0, "flan": 4},
        "unanswered": {"palm": 0, "flan": 6},
    }
    assert stage.manifest().rejected == {"no-gold": 1}
    assert "teacher palm" in said
    assert "80.0%" in said
    page = (run.folder / "run" / "report.html").read_text()
    assert "flan was asked about 6 rows in vain" in page
    report = json.loads((run.folder / "run" / "report.json").read_text())
    scores = {one["name"]: one["score"]["correct"] for one in report["judged"]}
    assert scores == {"palm": 8, "flan": 0}


def test_gold_labels_are_the_same_recipe(run):
    gold = ["--set", "task.labels=gold", "--set", "task.weight=equal"]
    run(*gold, "--until", "extract")
    run(*gold, "--until", "extract-text")
    for n, rows in enumerate(rows_by_question(run.folder, "extract").values()):
        assert [(r["answer"], r["weight"], r["source"]) for r in rows] == [(n % 2, 1.0, "gold")]
    for n, rows in enumerate(rows_by_question(run.folder, "extract-text").values()):
        (row,) = rows
        assert row["answer"] == PLACES[n % 2]
        # Rationales of all teachers join in the one row.
        assert [r["teacher"] for r in row["rationales"]] == ["palm", "flan"][: 2 if n else 1]


def test_gold_labels_without_rationales_ask_nobody(run):
    file = run.folder / "recipe.yaml"
    settings = ["task.labels=gold", "task.weight=equal", "students.writer.train.objective=null"]
    loaded = load_recipe(file, recipe_model, None, settings)
    names = [stage.name for stage in lay_out(loaded)]
    assert "ask" not in names
    assert {"ask-evaluation", "extract", "extract-text", "train-writer", "predict-minilm"} < set(
        names
    )
    said = run("--until", "extract", *(part for one in settings for part in ("--set", one)))
    assert "No teacher was asked about the rows" in said


def test_a_changed_reading_of_answers_asks_nobody_again(run):
    file = run.folder / "recipe.yaml"

    def made(*settings):
        loaded = load_recipe(file, recipe_model, None, settings)
        layout = [stage for stage in lay_out(loaded) if not stage.models]
        light = [s for s in layout if not {*s.inputs.values()} & {"train-minilm", "train-writer"}]
        return {name: f.whole for name, f in fingerprints(light, loaded).items()}

    before = made()
    changed = {
        "task.answer.pattern=is (.*)": {"extract", "extract-text", "predict-teachers"},
        "task.prompt='Q: {{ question }}'": {"extract", "extract-text", "predict-teachers"},
        "task.weight=equal": {"extract", "extract-text"},
        "ask.palm.samples=4": {
            "ask",
            "ask-evaluation",
            "extract",
            "extract-text",
            "predict-teachers",
        },
    }
    for setting, expected in changed.items():
        after = made(setting)
        assert {name for name in before if before[name] != after[name]} == expected, setting


def test_a_pattern_that_finds_nothing_is_told_before_any_training(run):
    done = command(
        run.folder,
        *("run", "recipe.yaml", "--run", "run", "--until", "extract"),
        *("--set", "task.answer.pattern=ANSWER (.*)"),
    )
    assert done.returncode == 1
    assert "no answer can be learnt; rejected: 119 unparsed" in done.stderr
    run("--until", "extract", "--update")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["task.prompt='{{ question'"], "task.prompt: line 1 is not Jinja"),
        (["task.gold=null"], "name their field in task.gold"),
        (["students.minilm.head=classes"], "students.minilm has a head for one list"),
        (["task.answer.rationale_pattern=null"], "rationale_weights wants rationales"),
        (["ask.palm.prompt={library: math/chain}"], "no template 'math/chain'"),
        (["task.prompt={file: gone.j2}"], "names a file that does not exist"),
        (["arms={undistilled: true}", "evaluation=null"], "arms are compared on evaluation rows"),
        (
            ["students.writer.train.objective.rationale_weights={gpt: 1.0}"],
            "'gpt', whom ask does not",
        ),
        (["ask.gpt={prompt: x}"], "ask has 'gpt', but teachers has: palm, flan"),
        (["task.kind=text", "task.choices_field=null"], "an encoder, which chooses"),
        (
            ["students.writer.train.objective={kind: logits}"],
            "students.writer learns by logits, which are of the teacher's own text",
        ),
        (["evaluation.file=gone.jsonl"], "names a file that does not exist"),
    ],
)
def test_what_a_recipe_cannot_want(run, settings, said):
    with pytest.raises(UseError) as caught:
        load_recipe(run.folder / "recipe.yaml", recipe_model, None, settings)
    assert said in str(caught.value)


def test_a_teacher_that_writes_is_compared_and_does_not_stand_behind_the_student(run):
    settings = ["teachers.flan={model: embedded://smollm2-135m-instruct}", "compare={}"]
    loaded = load_recipe(run.folder / "recipe.yaml", recipe_model, None, settings)
    assert "compare-minilm" in [stage.name for stage in lay_out(loaded)]
    assert not teacher_answers(loaded, "minilm")


def finished(folder, name, schema, shards):
    stage = StageFolder(name, Folder(str(folder / name)))
    for key, rows in shards.items():
        table = pa.Table.from_pylist(rows, schema=schema)
        stage.commit_shard(key, table, rejected_table(name, []))
    stage.commit(Manifest(name, "f", {}, list(shards), sum(map(len, shards.values())), {}))
    return stage


def answer(teacher, item, sample=0, text="So lake", **more):
    return {
        "id": content_id(teacher, item, sample),
        "item": item,
        "teacher": teacher,
        "sample": sample,
        "text": text,
        "finish": "stop",
        "usage": {"requests": 1, "tokens_in": None, "tokens_cached": None, "tokens_out": None},
        **more,
    }


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_rows_and_answers_meet_wherever_their_shards_are_cut(tmp_path, size):
    """Rows 0 to 19, of which 4 is there three times; nobody answers 7, nor flan multiples of 3."""
    items = [*range(12), 4, *range(12, 20), 4]
    rows = [{"id": f"item{n}", "fields": json.dumps({"n": n})} for n in items]
    inputs = finished(
        tmp_path, "inputs", INPUT, {f"{at:03}": rows[at : at + 6] for at in range(0, len(rows), 6)}
    )
    palm = [answer("palm", f"item{n}", s) for n in range(20) if n != 7 for s in range(2)]
    flan = [answer("flan", f"item{n}") for n in range(20) if n != 7 and n % 3]
    shards = {f"p{at}": palm[at : at + size][::-1] for at in range(0, len(palm), size)}
    shards |= {"none": []}
    shards |= {f"f{at}": flan[at : at + size] for at in range(0, len(flan), size)}
    met = [
        (row["id"], {teacher: {a["sample"] for a in listed} for teacher, listed in found.items()})
        for shard in answered_rows(inputs, finished(tmp_path, "ask", ANSWERED, shards))
        for row, found in shard
    ]
    assert [row for row, _ in met] == [f"item{n}" for n in items]
    for place, (item, found) in enumerate(zip(items, (found for _, found in met), strict=True)):
        if item == 7 or items.index(item) < place:
            assert found == {}
        else:
            assert found == {"palm": {0, 1}, **({"flan": {0}} if item % 3 else {})}


def test_a_text_that_is_learnt_as_it_was_written_keeps_its_teachers_tokens():
    task = AnswerTask(kind="text", prompt="Sum up: {{ text }}", system="Be short.")
    extraction = _Extraction(task, "text")
    tokens = {"token_ids": [5, 6], "top_ids": [5, 1, 6, 2], "top_logprobs": [-0.5, -1, -0.25, -2]}
    answers = {"llama": [answer("llama", "x", s, f" Text {s}\n", **tokens) for s in range(2)]}
    row = {"id": "0" * 32, "fields": json.dumps({"text": "All of it."})}
    made = pa.Table.from_pylist(list(extraction.rows(row, answers)), schema=TEXT_TRAINING)
    for sample, found in enumerate(made.to_pylist()):
        assert found["messages"] == [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Sum up: All of it."},
        ]
        assert found["answer"] == f" Text {sample}\n"
        assert {name: found[name] for name in tokens} == tokens
        assert (found["weight"], found["source"], found["rationales"]) == (1.0, "llama", None)


def test_an_extracted_answer_has_no_tokens():
    task = AnswerTask.model_validate(
        {"kind": "text", "prompt": "{{ text }}", "answer": {"form": "number"}}
    )
    row = {"id": "0" * 32, "fields": json.dumps({"text": "6 * 7"})}
    answers = {"llama": [answer("llama", "x", text="That is 42 apples.")]}
    (found,) = _Extraction(task, "text").rows(row, answers)
    made = pa.Table.from_pylist([found], schema=TEXT_TRAINING).to_pylist()[0]
    assert (made["answer"], made["token_ids"], made["top_ids"]) == ("42", None, None)


CQA_SKIPPED = pytest.mark.skipif(
    SHARED is None, reason="STILLHOUSE_SHARED names no folder with recorded data"
)


@CQA_SKIPPED
def test_extraction_finds_what_palm_is_published_to_have_answered(tmp_path):
    """74.26% of CommonsenseQA's training questions and 77.23% of its test questions are right."""
    shutil.copytree(ROOT / "recipes" / "cqa_palm", tmp_path / "cqa_palm")
    shutil.copy(ROOT / "recipes" / "cqa_palm.yaml", tmp_path / "recipe.yaml")
    source = Path(SHARED) / "data" / "cqa_palm540b"
    prepare = [sys.executable, tmp_path / "cqa_palm" / "prepare.py", source]
    subprocess.run(prepare, check=True)
    for until in ("extract", "predict-teachers"):
        done = command(tmp_path, "run", "recipe.yaml", "--run", "run", "--until", until)
        assert done.returncode == 0, done.stderr
    gold = {
        row["question"]: row["answer"]
        for row in map(json.loads, (tmp_path / "cqa_palm" / "train.jsonl").read_text().splitlines())
    }
    rows = stage_of(tmp_path, "extract").read().to_pylist()
    right = sum(row["choices"][row["answer"]] == gold[row["question"]] for row in rows)
    assert 100 * right / len(gold) == pytest.approx(74.26, abs=0.1)
    facts = stage_of(tmp_path, "predict-teachers").manifest().facts
    assert 100 * facts["accuracy"]["palm"] == pytest.approx(77.23, abs=0.1)
    manifest = stage_of(tmp_path, "extract").manifest()
    assert manifest.rows + sum(manifest.rejected.values()) == 9741
    assert Run(Folder(str(tmp_path / "run"))).finished_stages()["ask"].manifest().rows == 9741
