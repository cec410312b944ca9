"""Many teachers whole: two recorded ones, a tiny student, its baseline; and the recipe itself."""

from __future__ import annotations

import json

import pytest

from core.rows import WRITTEN
from core.run import Folder, Run
from tests.integration.test_frontier_recipes import MOST_SECONDS, run_recipe
from tests.unit.test_recorded import command, write_lines

PLACES = ["lake", "dam", "sea"]

RECIPE = """\
name: places
method: many_teachers
inputs: {{file: train.jsonl}}
evaluation: {{file: test.jsonl, score_choices: true, teachers: false}}
teachers:
  first: {{backend: recorded, model: first, files: [first.jsonl]}}
  second: {{backend: recorded, model: second, files: [second.jsonl]}}
ask:
  first: {{prompt: "{{{{ question }}}} {{{{ right.text }}}}"}}
  second: {{prompt: "{{{{ question }}}} {{{{ right.text }}}}"}}
in_context: {{examples: 2, chosen: nearest, embedding: {encoder}}}
task:
  kind: choices
  choices: [lake, dam, sea]
  prompt: "{{{{ question }}}}"
  gold: answer
  labels: gold
  answer: {{rationale_pattern: '(?s)^(.*)$'}}
students:
  writer:
    family: causal
    model: {causal}
    train:
      objective:
        kind: sequence
        rationale_weights: {{first: 1.0, second: 0.5}}
        answer_prefix: "predict: "
        rationale_prefix: {{first: "explain: ", second: "rationale: "}}
      epochs: 3
      batch_size: 8
      learning_rate: 3.0e-3
      max_length: 40
      max_answer_length: 24
      validation_share: 0
      device: {{kind: cpu-core, cpus: 1}}
ablate:
  judged_by: choice
  seeds: [0]
  variants:
    zero-shot: {{undistilled: true}}
  claims:
    - {{says: many are better, better: as it is, than: zero-shot}}
"""


@pytest.fixture
def folder(tmp_path, tiny_teacher, tiny_encoder):
    rows = [{"question": f"Where {n}?", "answer": PLACES[n % 3]} for n in range(72)]
    write_lines(tmp_path / "train.jsonl", rows[:48])
    write_lines(tmp_path / "test.jsonl", rows[48:])
    for teacher, why in (
        ("first", "Fish of that kind live there"),
        ("second", "Water stays in it"),
    ):
        records = [
            {"prompt": f"{row['question']} {row['answer']}", "text": f"{why}, as {n} of them know."}
            for n, row in enumerate(rows)
        ]
        write_lines(tmp_path / f"{teacher}.jsonl", records)
    text = RECIPE.format(causal=tiny_teacher, encoder=tiny_encoder)
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path


@pytest.mark.slow
def test_students_learn_of_two_teachers_and_stand_beside_the_baselines(folder):
    done = command(folder, "ablate", "recipe.yaml", "--run", "run", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    stages = Run(Folder(str(folder / "run"))).finished_stages()
    # Examples that are chosen by embedding are other rows than the one that they stand beside.
    for row in stages["show"].read().to_pylist():
        fields = json.loads(row["fields"])
        others = [one["question"] for one in fields["examples"]]
        assert len(set(others)) == 2
        assert fields["question"] not in others
    rows = stages["rationalize"].read().to_pylist()
    assert len(rows) == 48
    assert all(len(row["rationales"]) == 2 for row in rows)
    stage = stages["predict-writer"]
    assert stage.read().schema.equals(WRITTEN)
    right = [row["right_choice"] for row in stage.read().to_pylist()]
    facts = stage.manifest().facts
    assert facts["choice_accuracy"] == {"writer": sum(right) / 24}
    book = json.loads((folder / "run" / "ablations.json").read_text())["found"]
    assert [one["name"] for one in book["variants"]] == ["as it is", "zero-shot"]
    whole = book["variants"][0]
    assert whole["by_seed"] == [facts["choice_accuracy"]["writer"]]
    assert whole["other"] == facts["accuracy"]["writer"]
    assert book["claims"][0]["verdict"] in ("seen", "not seen", "cannot tell at this size")
    page = (folder / "run" / "report.html").read_text()
    assert "What became of the rationales of every teacher" in page
    assert "As written" in page
    # The baseline without any training, by itself: it was done as a variant, and has a report, too.
    alone = ("--run", "run", "--set", "undistilled=true", "--update", "--until", "predict-writer")
    done = command(folder, "run", "recipe.yaml", *alone)
    assert done.returncode == 0, done.stderr
    assert "Everything was done already" in done.stdout
    report = json.loads((folder / "run" / "report.json").read_text())
    assert [one["name"] for one in report["judged"]] == ["writer"]


@pytest.mark.slow
def test_the_recipe_learns_of_two_real_teachers(tmp_path):
    report, seconds = run_recipe("many_teachers", tmp_path)
    (made,) = report["training_rows"]
    assert [one["teacher"] for one in made["rationales"]] == ["first", "second"]
    for one in made["rationales"]:
        assert one["learnt"] > made["rows"] / 2
    judged = {one["name"]: one for one in report["judged"]}
    assert list(judged) == ["first", "second", "student"]
    assert judged["student"]["by_choice"]["total"] == 100
    assert seconds < MOST_SECONDS
