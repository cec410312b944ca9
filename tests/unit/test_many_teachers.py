"""Many teachers: from recorded rationales to rows with the right answer and one of each teacher."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from core.errors import UseError
from core.recipe_file import load_recipe
from core.recipe_students import SequenceObjective
from core.rows import TEXT_TRAINING
from core.run import Folder, Run
from pipelines.in_context import draw, nearest
from pipelines.prompt_files import compile_prompt
from pipelines.prompt_library import read_template
from pipelines.rationales import new_words
from stillhouse.display import show_run
from stillhouse.methods import lay_out, recipe_model
from stillhouse.stages import fingerprints
from stillhouse.workflow import plan_run
from tests.unit.test_recorded import stage_of, write_lines
from training.texts import texts_of

SHARED = os.environ.get("STILLHOUSE_SHARED")
RECIPES = Path(__file__).parents[2] / "recipes"

ROWS = 60
PLACES = ["lake", "dam", "sea"]

RECIPE = """\
name: places
method: many_teachers
shard_rows: 25
inputs: {file: train.jsonl}
evaluation: {file: test.jsonl, score_choices: true}
teachers:
  wise: {backend: recorded, model: wise-1b, files: [wise.jsonl]}
  loud: {backend: recorded, model: loud-1b, files: [loud.jsonl]}
  dull: {backend: recorded, model: dull-1b, files: [dull.jsonl]}
ask:
  wise: {prompt: "Why {{ question }} {{ right.text if right else '' }}", samples: 2}
  loud: {prompt: "{{ question }}"}
  dull: {prompt: "{{ question }}"}
in_context: {examples: 3}
rationales: {min_words: 3, most_repeats: 2}
answering: [wise]
task:
  kind: choices
  choices: [lake, dam, sea]
  prompt: "{{ question }}"
  gold: answer
  labels: gold
  answer: {pattern: 'So (.*)', rationale_pattern: '(?s)^(.*?)(?:So .*)?$'}
students:
  writer:
    family: causal
    model: embedded://smollm2-135m-instruct
    train:
      objective:
        kind: sequence
        rationale_weights: {wise: 1.0, loud: 0.5, dull: 0.1}
        answer_prefix: "predict: "
        rationale_prefix: {wise: "explain: ", loud: "shout: ", dull: "mumble: "}
"""


@pytest.fixture
def run(tmp_path):
    rows = [{"question": f"Where {n}?", "answer": PLACES[n % 3]} for n in range(ROWS)]
    write_lines(tmp_path / "train.jsonl", [*rows, {"question": "Where?", "answer": "Lisbon"}])
    write_lines(tmp_path / "test.jsonl", [{**r, "question": f"When {r['question']}"} for r in rows])
    wise = []
    for n, row in enumerate(rows):
        first = {0: "Fish.", 1: f"The answer is {PLACES[n % 3]}, the {PLACES[n % 3]}."}.get(n % 10)
        for text in (first or f"Fish {n} live there.", f"Fish {n} swim in {PLACES[n % 3]} water."):
            asked = f"Why {row['question']} {PLACES[n % 3]}"
            wise.append({"prompt": asked, "text": f"{text} So {PLACES[n % 3]}"})
        wise.append({"prompt": f"Why When {row['question']} ", "text": f"So {PLACES[n % 2]}"})
        wise.append(
            {"prompt": f"Why {row['question']} ", "text": f"Tides say so. So {PLACES[n % 2]}"}
        )
    write_lines(tmp_path / "wise.jsonl", wise)
    write_lines(
        tmp_path / "loud.jsonl",
        [{"prompt": row["question"], "text": "Because everybody knows it!"} for row in rows],
    )
    write_lines(
        tmp_path / "dull.jsonl",
        [
            {"prompt": row["question"], "text": f"The right answer is {row['answer']}."}
            for row in rows
        ],
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(*settings, until="rationalize"):
        """As the command does, without a process of its own."""
        loaded = load_recipe(tmp_path / "recipe.yaml", recipe_model, None, settings)
        show_run(plan_run(loaded, Run(Folder(str(tmp_path / "run")))), until)

    run.folder = tmp_path
    return run


def learnt(folder):
    """By the number of the question: its answer, and its rationales by teacher."""
    stage = stage_of(folder, "rationalize")
    assert stage.read().schema.equals(TEXT_TRAINING)
    return {
        int(row["messages"][-1]["content"][6:-1]): (
            row["answer"],
            {one["teacher"]: one["text"] for one in row["rationales"] or []},
        )
        for row in stage.read().to_pylist()
    }


def shown(folder, stage="show"):
    """By the id of the row: what teachers saw of it."""
    found = [json.loads(row["fields"]) for row in stage_of(folder, stage).read().to_pylist()]
    return {fields["shown_of"]: fields for fields in found}


def check_examples(folder):
    """Each row is shown beside three others and their answers."""
    rows = shown(folder)
    assert len(rows) == ROWS
    for fields in rows.values():
        n = int(fields["question"][6:-1])
        assert fields["right"] == {"text": PLACES[n % 3], "letter": "ABC"[n % 3]}
        numbers = [int(one["question"][6:-1]) for one in fields["examples"]]
        assert len(set(numbers)) == 3
        assert n not in numbers
        for one in fields["examples"]:
            assert one["right"]["text"] == one["answer"]
    drawn = {one["question"] for fields in rows.values() for one in fields["examples"]}
    assert len(drawn) > ROWS / 2, "different rows see different examples"


def test_each_row_learns_the_right_answer_and_what_each_teacher_has_to_say(run):
    run(until="predict-teachers")
    run()
    check_examples(run.folder)
    rows = learnt(run.folder)
    assert sorted(rows) == list(range(ROWS))
    for n, (answer, why) in rows.items():
        assert answer == PLACES[n % 3]
        # A sample that is too short, or repeats the answer, gives way to the next.
        second = n % 10 in (0, 1)
        place = f"swim in {PLACES[n % 3]} water" if second else "live there"
        assert why["wise"] == f"Fish {n} {place}."
    # One that always says the same is learnt of two rows, one that repeats the answer of none.
    assert sum("loud" in why for _, why in rows.values()) == 2
    assert not any("dull" in why for _, why in rows.values())
    manifest = stage_of(run.folder, "rationalize").manifest()
    assert manifest.rejected == {
        "answer-alone": ROWS // 10 + ROWS,
        "repeated-rationale": ROWS - 2,
        "short-rationale": ROWS // 10,
    }
    facts = manifest.facts["rationales"]
    assert {name: one["learnt"] for name, one in facts.items()} == {
        "wise": ROWS,
        "loud": 2,
        "dull": 0,
    }
    assert facts["wise"]["mean_words"] == pytest.approx(0.8 * 4 + 0.2 * 6)
    assert facts["dull"] == {
        "answers": ROWS,
        "learnt": 0,
        "mean_words": None,
        "rejected": {"answer-alone": ROWS},
    }
    by_teacher = stage_of(run.folder, "rationalize").read_rejected().to_pylist()
    assert {row["teacher"] for row in by_teacher if row["reason"] == "answer-alone"} == {
        "wise",
        "dull",
    }
    # The row whose answer is no choice is no example, and nobody is asked about it.
    assert stage_of(run.folder, "show").manifest().rejected == {"no-gold": 1}
    # Evaluation rows are answered without the answer, and are judged under their own ids.
    assert {one["right"] for one in shown(run.folder, "show-evaluation").values()} == {None}
    judged = stage_of(run.folder, "predict-teachers")
    assert judged.manifest().facts["accuracy"]["wise"] == pytest.approx(1 / 3)
    evaluation = stage_of(run.folder, "evaluation").read()["id"].to_pylist()
    assert judged.read()["id"].to_pylist() == evaluation
    report = json.loads((run.folder / "run" / "report.json").read_text())
    (made,) = report["training_rows"]
    assert [one["teacher"] for one in made["rationales"]] == ["wise", "loud", "dull"]
    page = (run.folder / "run" / "report.html").read_text()
    assert "Nothing of what dull wrote can be learnt" in page


def test_examples_of_a_file_may_say_why(run):
    # Two of three rows ask what it asks.
    why = [{"question": f"where  {n}?", "answer": 0, "why": "It is."} for n in range(2)]
    write_lines(run.folder / "why.jsonl", why)
    run("in_context.file=why.jsonl", "teacher_forcing=false", until="show")
    for fields in shown(run.folder).values():
        assert fields["right"] is None
        others = [one["question"] for one in fields["examples"]]
        assert len(others) == (1 if fields["question"] in ("Where 0?", "Where 1?") else 2)
        assert all(one["why"] == "It is." for one in fields["examples"])
    write_lines(run.folder / "why.jsonl", [{"question": "Where?"}])
    with pytest.raises(UseError, match="no row can be shown as an example"):
        run("in_context.file=why.jsonl", until="show")


def test_a_draw_has_no_favourites_and_a_larger_one_has_the_smaller_one():
    pool = [f"row {n}" for n in range(10)]
    assert draw("a", pool, 3, seed=0) == draw("a", pool, 5, seed=0)[:3]
    assert draw("a", pool, 99, seed=0) != draw("a", pool, 99, seed=1)
    assert sorted(draw("a", pool, 99, seed=0)) == list(range(10))
    counts = np.bincount([draw(str(n), pool, 1, seed=0)[0] for n in range(1000)], minlength=10)
    assert counts.min() > 60  # 100 each, with a standard deviation of 9.5


def test_the_nearest_are_those_with_the_greatest_cosine():
    pool = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.6, 0.8]])
    queries = np.array([[0.0, 1.0], [1.0, 0.0]])
    # Cosines: 0, 0.8, 1, 0.8 and 1, 0.6, 0, 0.6; of equals the first comes first.
    assert nearest(queries, pool, 3).tolist() == [[2, 1, 3], [0, 1, 3]]
    assert nearest(queries, pool, 9).shape == (2, 4)


@pytest.mark.parametrize(
    ("rationale", "known", "new"),
    [
        ("So the right answer is (b), the dam!", ["The dam"], set()),
        (
            "A dam holds water back, and so does a wall.",
            ["dam"],
            {"holds", "water", "back", "wall"},
        ),
        ("Stars are great balls of gas.", ["great balls of gas"], {"stars"}),
        ("Stars are great balls of gas.", ["great balls of gas", "STARS are"], set()),
        ("6 + 1 = 7, so 7.", ["7"], {"6", "1"}),
        ("", ["dam"], set()),
    ],
)
def test_new_words_are_those_that_were_not_known(rationale, known, new):
    assert new_words(rationale, known) == new


@pytest.mark.parametrize("kind", ["multiple_choice", "math", "nli"])
def test_prompts_of_the_library_show_the_answer_only_where_it_is_forced(kind):
    _, prompt = read_template(f"{kind}/rationale")
    fields = {
        "multiple_choice": {"question": "Where?", "choices": ["lake", "dam"]},
        "math": {"question": "How many?"},
        "nli": {"premise": "It rains.", "hypothesis": "It is wet."},
    }[kind]
    right = {"text": "entailment" if kind == "nli" else "42", "letter": "B"}
    example = {**fields, "right": {"text": "neutral", "letter": "A"}}
    text, system = compile_prompt(prompt.text), compile_prompt(prompt.system)
    for why in (None, "It is so."):
        examples = [example if why is None else example | {"why": why}]
        forced = text.render(fields, examples=examples, right=right)
        alone = text.render(fields, examples=examples, right=None)
        assert forced.count("Answer: ") == 2
        assert alone.count("Answer: ") == (1 if why is None else 0)
        assert right["text"] not in alone
        assert (f"Rationale: {why}" in forced) == (why is not None)
        assert ("So the answer is" in alone) == (why is not None)
        assert forced.endswith("\nRationale: Let's think step by step.")
    assert "So the answer is" in system.render(right=None)
    assert "So the answer is" not in system.render(right=right)


def test_each_teacher_has_its_prefix_and_no_two_tasks_have_the_same():
    objective = SequenceObjective(
        kind="sequence",
        answer_prefix="predict: ",
        rationale_weights={"a": 1.0, "b": 0.5, "c": 0.0},
        rationale_prefix={"a": "explain: ", "b": "rationale: "},
    )
    row = {
        "messages": [{"role": "user", "content": "Where?"}],
        "answer": "dam",
        "rationales": [{"teacher": name, "text": f"{name} says"} for name in "abc"],
    }
    found = [
        (one.task, one.messages[-1]["content"], one.target) for one in texts_of(row, objective)
    ]
    assert found == [
        ("answer", "predict: Where?", "dam"),
        ("a", "explain: Where?", "a says"),
        ("b", "rationale: Where?", "b says"),
    ]

    def refused(**said):
        with pytest.raises(ValidationError) as error:
            SequenceObjective(kind="sequence", **said)
        return str(error.value)

    weights = {"a": 1.0, "b": 0.5}
    said = refused(rationale_weights=weights, rationale_prefix="why: ")
    assert "rationale of a and the rationale of b have the same prefix, 'why: '" in said
    said = refused(rationale_weights={"a": 1.0}, answer_prefix="x", rationale_prefix="x")
    assert "the answer and the rationale of a have the same prefix" in said
    said = refused(rationale_weights=weights, rationale_prefix={"a": "why: "})
    assert "rationale_prefix has nothing for 'b'" in said


BASELINES = {
    "full fine-tuning": ["students.writer.train.objective.rationale_weights={}"],
    "standard distillation": [
        "students.writer.train.objective.rationale_weights={}",
        "task.labels=teacher",
        "teacher_forcing=false",
    ],
    "zero-shot": ["undistilled=true"],
    "step by step": ["students.writer.train.objective.rationale_weights={wise: 1.0}"],
    "without forcing": ["teacher_forcing=false"],
    "without examples": ["in_context.examples=0"],
}


def test_baselines_ask_nobody_in_vain(run):
    def layout(*settings):
        loaded = load_recipe(run.folder / "recipe.yaml", recipe_model, None, settings)
        return loaded, {stage.name: stage for stage in lay_out(loaded)}

    loaded, whole = layout()
    assert whole["ask"].teachers == ["wise", "loud", "dull"]
    assert whole["ask-evaluation"].teachers == ["wise"]
    light = [s for s in whole.values() if not s.name.startswith(("train", "predict"))]
    works = {name: made.work for name, made in fingerprints(light, loaded).items()}
    found = {name: layout(*settings)[1] for name, settings in BASELINES.items()}
    assert "ask" not in found["full fine-tuning"]
    assert found["full fine-tuning"]["train-writer"].inputs == {"rows": "rationalize"}
    assert found["standard distillation"]["ask"].teachers == ["wise"]
    assert found["standard distillation"]["train-writer"].inputs == {"rows": "extract-text"}
    assert list(found["zero-shot"]) == ["evaluation", "predict-writer"]
    assert found["zero-shot"]["predict-writer"].predicts == "writer"
    assert found["step by step"]["ask"].teachers == ["wise"]
    # Another weight teaches otherwise, and asks nobody again.
    other, weighed = layout("students.writer.train.objective.rationale_weights.loud=2.0")
    assert weighed["train-writer"].settings != whole["train-writer"].settings
    again = fingerprints([weighed[stage.name] for stage in light], other)
    assert {name: made.work for name, made in again.items()} == works


def test_labels_of_teachers_are_what_they_answer_without_the_answer(run):
    run(*BASELINES["standard distillation"], until="extract-text")
    rows = stage_of(run.folder, "extract-text").read().to_pylist()
    assert len(rows) == ROWS
    for row in rows:
        n = int(row["messages"][-1]["content"][6:-1])
        assert row["answer"] == PLACES[n % 2]
        assert row["source"] == "wise"


def test_rows_are_learnt_whoever_is_asked(run):
    """The same rows under the same ids with rationales and without: what is compared is these."""
    ids = []
    for settings in (
        [],
        ["students.writer.train.objective.rationale_weights={}"],
    ):
        run(*settings)
        ids.append(stage_of(run.folder, "rationalize").read()["id"].to_pylist())
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["task.labels=teacher"], "students learn rationales of the right answer"),
        (
            [
                "task.labels=teacher",
                "students.writer.train.objective.rationale_weights={}",
            ],
            "task.labels is teacher, and teachers see the right answer",
        ),
        (["answering=[bold]"], "answering has 'bold', whom ask does not ask"),
        (["answering=[]"], "answering is empty"),
        (["undistilled=true", "evaluation=null"], "give evaluation"),
        (["task.answer.rationale_pattern=null"], "nothing says how one is found"),
        (["in_context.file=none.jsonl"], "in_context.file names a file that does not exist"),
        (["rationales.min_new_words=-1"], "greater than or equal to 0"),
    ],
)
def test_what_does_not_go_together_is_refused(run, settings, said):
    with pytest.raises(UseError, match=said):
        load_recipe(run.folder / "recipe.yaml", recipe_model, None, settings)


OBQA = ("obqa_train", "obqa_test", "obqa_flan_train")
PROFILES = [
    ("many_teachers", None),
    ("many_teachers", "local"),
    ("many_teachers", "kubernetes"),
    ("openbookqa", None),
    ("openbookqa", "full"),
]


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_every_variant_of_the_recipes_is_possible(tmp_path, name, profile):
    shutil.copytree(RECIPES, tmp_path, dirs_exist_ok=True)
    for brought in OBQA:
        (tmp_path / "tinyllm" / f"{brought}.jsonl").touch()
    file = tmp_path / f"{name}.yaml"
    variants = load_recipe(file, recipe_model, profile).training_recipe.ablate.variants
    found = {}
    for variant, changes in variants.items():
        loaded = load_recipe(file, recipe_model, profile, variant=changes)
        found[variant] = {stage.name: stage for stage in lay_out(loaded)}
        (student,) = loaded.training_recipe.students
        assert found[variant][f"predict-{student}"].predicts == student
    assert {"zero-shot", "full fine-tuning"} < set(found)
    assert not any("ask" in found[name] for name in ("zero-shot", "full fine-tuning"))


def write_obqa(folder):
    """OpenBookQA with FLAN-T5-XL's rationales in their authors' form, prepared by the script."""
    rows = [json.loads(line) for line in (DATA / "obqa" / "train.jsonl").read_text().splitlines()]
    for part, some in (("train", rows[:200]), ("test", rows[200:210])):
        source = folder / "source" / "obqa"
        (source / "llm").mkdir(parents=True, exist_ok=True)
        write_lines(source / f"obqa_{part}.json", some)
        texts = [
            f"{row['rationale_flan_t5_xl']} Thus, the answer is (a) {row['answer']}\n\n"
            "Q: Why?\n(a) x llama rationale: Because."
            for row in some
        ]
        # In as many files as the authors have: the tenth behind the ninth.
        for n in range(11):
            piece = texts[20 * n : 20 * (n + 1)]
            (source / "llm" / f"{part}_CoT_{n}.json").write_text(json.dumps(piece))
    prepare = runpy.run_path(str(RECIPES / "tinyllm" / "prepare.py"))["prepare"]
    prepare(folder / "source", "obqa", folder)
    return {
        "inputs": {"file": "obqa_train.jsonl", "limit": None},
        "prompt": "{{ id }}",
        "files": ["obqa_flan_train.jsonl"],
        "task": {"kind": "multiple_choice"},
        "answer": {"rationale_pattern": "(?s)^(.*?)Thus, the answer is"},
    }


def write_cqa(folder):
    prepare = runpy.run_path(str(RECIPES / "cqa_palm" / "prepare.py"))["prepare"]
    prepare(DATA / "cqa_palm540b", folder)
    return {
        "inputs": {"file": "train.jsonl", "limit": 200},
        "prompt": "{{ id }}",
        "files": ["palm_train.jsonl"],
        "task": {"kind": "multiple_choice"},
        "answer": {"cut_at": ["Q:"], "rationale_pattern": "(?s)^(.*?)So the answer is"},
    }


def write_svamp(folder):
    source = DATA / "svamp_palm540b"
    rows = [json.loads(line) for line in (source / "svamp_train.json").read_text().splitlines()]
    texts = [
        text
        for n in range(2)
        for text in json.loads((source / "palm" / f"train_CoT_{n}.json").read_text())
    ]
    records = [
        {"prompt": row["input"].replace("\n", " "), "text": text}
        for row, text in zip(rows, texts, strict=True)
    ]
    write_lines(folder / "palm.jsonl", records)
    shutil.copy(source / "svamp_train.json", folder)
    return {
        "inputs": {"file": "svamp_train.json", "format": "svamp", "limit": 200},
        "prompt": "{{ question }}",
        "files": ["palm.jsonl"],
        "task": {"kind": "math"},
        "answer": {"cut_at": ["Q:"], "rationale_pattern": "(?s)^(.*?)The answer is"},
    }


DATA = Path(SHARED or "") / "data"


@pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with data")
@pytest.mark.parametrize("write", [write_obqa, write_cqa, write_svamp])
def test_recorded_teachers_of_the_papers_are_learnt_from(tmp_path, write):
    """What they said of 200 rows is the rationale, without the answer and what they ran on to."""
    said = write(tmp_path)
    objective = {"kind": "sequence", "rationale_weights": {"teacher": 1.0}}
    student = {"family": "causal", "model": "embedded://smollm2-135m-instruct"}
    recipe = {
        "name": "recorded",
        "method": "many_teachers",
        "inputs": said["inputs"],
        "teachers": {"teacher": {"backend": "recorded", "model": "x", "files": said["files"]}},
        "ask": {"teacher": {"prompt": {"user": said["prompt"], "answer": said["answer"]}}},
        "task": {"labels": "gold", **said["task"]},
        "students": {"writer": {**student, "train": {"objective": objective}}},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    loaded = load_recipe(tmp_path / "recipe.yaml", recipe_model)
    show_run(plan_run(loaded, Run(Folder(str(tmp_path / "run")))), "rationalize")
    stage = stage_of(tmp_path, "rationalize")
    rows = stage.read().to_pylist()
    assert len(rows) == 200
    (told,) = stage.manifest().facts["rationales"].values()
    assert told["learnt"] > 180
    assert set(told["rejected"]) <= {"answer-alone", "short-rationale", "no-rationale"}
    for row in rows:
        for one in row["rationales"] or []:
            assert not re.search(r"answer is \(|llama rationale|\bQ:", one["text"])
