"""A teaching assistant whole: warm-up, samples, what they choose, and what is learnt at the end."""

from __future__ import annotations

import json

import pytest

from core.rows import SAMPLED
from core.run import Folder, Run
from tests.integration.test_frontier_recipes import MOST_SECONDS, run_recipe
from tests.unit.test_recorded import command, write_lines

PLACES = ["lake", "dam", "sea"]

RECIPE = """\
name: places
method: teaching_assistant
shard_rows: 16
inputs: {{file: train.jsonl}}
evaluation: {{file: test.jsonl, score_choices: true, teachers: false}}
teachers:
  palm: {{backend: recorded, model: palm-540b, files: [palm.jsonl]}}
  aide:
    backend: recorded
    model: aide
    files: [aide.jsonl]
    columns: {{text: null, labels: logprobs}}
ask:
  palm: {{prompt: "Why: {{{{ question }}}}"}}
task:
  kind: choices
  choices: [lake, dam, sea]
  prompt: "{{{{ question }}}}"
  gold: answer
  answer: {{pattern: 'So (.*)', rationale_pattern: '(?s)^(.*?)So'}}
assist:
  teacher: aide
  budget: {{calls: 32}}
  warm_up: 0.5
  consistency: {{samples: 4, temperature: 1.0, max_tokens: 6}}
  confidence: {{prompt: "{{{{ asked }}}} {{{{ answer }}}}?"}}
students:
  writer:
    family: causal
    model: {model}
    train:
      objective: {{kind: sequence, rationale_weights: {{palm: 0.5}}}}
      epochs: 8
      batch_size: 8
      learning_rate: 3.0e-3
      max_length: 40
      max_answer_length: 24
      validation_share: 0
      device: {{kind: cpu-core, cpus: 1}}
"""


@pytest.fixture
def folder(tmp_path, tiny_teacher):
    rows = [{"question": f"Where {n}?", "answer": PLACES[n % 3]} for n in range(72)]
    write_lines(tmp_path / "train.jsonl", rows[:48])
    write_lines(tmp_path / "test.jsonl", rows[48:])
    why = "Fish of that kind live in such a place."
    said = [{"prompt": f"Why: Where {n}?", "text": f"{why} So {PLACES[n % 3]}"} for n in range(48)]
    write_lines(tmp_path / "palm.jsonl", said)
    trusted = {True: {" yes": -0.1, " no": -3.0}, False: {" yes": -3.0, " no": -0.1}}
    judged = [
        {"prompt": f"Where {n}? {place}?", "logprobs": trusted[place == PLACES[n % 3]]}
        for n in range(48)
        for place in PLACES
    ]
    write_lines(tmp_path / "aide.jsonl", judged)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=tiny_teacher))
    return tmp_path


def losses(stages, name):
    """The losses of a training's epochs."""
    folder = stages[name].folder
    lines = folder.read("metrics.jsonl").decode().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.slow
def test_a_warmed_up_student_says_what_it_wants_to_be_taught(folder):
    done = command(folder, "run", "recipe.yaml", "--run", "run", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    stages = Run(Folder(str(folder / "run"))).finished_stages()
    taught = {row["id"] for row in stages["draw"].read().to_pylist()}
    sampled = stages["sample"].read()
    assert sampled.schema.equals(SAMPLED)
    rows = {row["id"]: row for row in sampled.to_pylist()}
    assert len(taught) == 16
    assert len(rows) == 48 - 16
    assert not taught & set(rows)
    for row in rows.values():
        assert len(row["texts"]) == 4
        votes = sum(row["answer"] == text.strip() for text in row["texts"])
        assert row["consistency"] == votes / 4 if row["answer"] else row["consistency"] == 0
    # Where the student is wrong the assistant doubts it: those rows come first.
    chosen = {row["id"] for row in stages["acquire"].read().to_pylist()}
    assert len(chosen) == 16
    wrong = {row_id for row_id, row in rows.items() if not row["right"]}
    assert wrong <= chosen or chosen <= wrong
    assert stages["teach"].manifest().rows == 32
    # It goes on from where the warm-up ended.
    assert losses(stages, "train-writer")[0] < losses(stages, "warm-up-writer")[0]
    report = json.loads((folder / "run" / "report.json").read_text())
    assert not report["warnings"]
    found = report["assistance"]
    assert (found["calls"], found["warm_up"], found["acquired"]) == (32, 16, 16)
    assert found["signals"][0]["name"] == "the student, in itself"
    assert [one["name"] for one in report["judged"]] == ["writer, warmed up", "writer"]


@pytest.mark.slow
def test_the_recipe_spends_its_budget_and_tells_what_its_signals_are_worth(tmp_path):
    report, seconds = run_recipe("teaching_assistant", tmp_path)
    found = report["assistance"]
    assert (found["calls"], found["warm_up"], found["acquired"]) == (100, 30, 70)
    assert len(found["signals"]) == 3
    for signal in found["signals"]:
        assert signal["answers"] > 0
        assert 0 <= signal["mean"] <= 1
    assert found["before"]["labels"] > found["after"]["labels"] > 0
    names = [one["name"] for one in report["judged"]]
    assert names == ["teacher", "student, warmed up", "student"]
    assert seconds < MOST_SECONDS
