"""Zero-shot prompts and rationales whole: tiny students of both families, and the recipe itself."""

from __future__ import annotations

import json
import re

import pytest

from core.rows import WRITTEN
from core.run import Folder, Run
from tests.commands import fresh_command as command
from tests.integration.test_frontier_recipes import MOST_SECONDS, run_recipe
from tests.unit.test_recorded import write_lines

PLACES = ["lake", "dam", "sea"]
WHY = "Fish of that kind live in a {}, and nowhere else at all."

RECIPE = """\
name: places
method: zero_shot
inputs: {{file: train.jsonl}}
evaluation: {{file: test.jsonl, score_choices: true}}
teachers:
  palm: {{backend: recorded, model: palm-540b, files: [palm.jsonl]}}
ask:
  palm: {{prompt: "Why: {{{{ question }}}}"}}
task:
  kind: choices
  choices: [lake, dam, sea]
  prompt: "{{{{ question }}}}"
  gold: answer
  labels: gold
  answer: {{pattern: 'So (.*)', rationale_pattern: '(?s)^(.*?)So'}}
students:
  writer:
    family: causal
    model: {causal}
    train: &train
      objective: {{kind: sequence, answer_weight: 0.5, rationale_weights: {{palm: 0.5}}}}
      epochs: 4
      batch_size: 8
      learning_rate: 3.0e-3
      max_length: 40
      max_answer_length: 24
      validation_share: 0
      device: {{kind: cpu-core, cpus: 1}}
  reader: {{family: seq2seq, model: {seq2seq}, train: *train}}
ablate:
  judged_by: choice
  seeds: [0]
  variants:
    labels alone: {{rationales.share: 0}}
    a third: {{rationales.share: 0.3333333333}}
  claims:
    - {{says: a third keeps it, better: a third, of: as it is, than: labels alone, keeps: 0.9}}
"""


@pytest.fixture
def folder(tmp_path, tiny_teacher, tiny_seq2seq):
    rows = [{"question": f"Where {n}?", "answer": PLACES[n % 3]} for n in range(72)]
    write_lines(tmp_path / "train.jsonl", rows[:48])
    write_lines(tmp_path / "test.jsonl", rows[48:])
    records = [
        {"prompt": f"Why: Where {n}?", "text": f"{WHY.format(PLACES[n % 3])} So {PLACES[n % 3]}"}
        for n in range(72)
    ]
    write_lines(tmp_path / "palm.jsonl", records)
    text = RECIPE.format(causal=tiny_teacher, seq2seq=tiny_seq2seq)
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path


@pytest.mark.slow
def test_students_of_both_families_learn_labels_and_rationales_cell_by_cell(folder):
    """The cells of the ablation are done one at a time, and then the run has hardly any to do."""

    def do(*arguments):
        done = command(folder, *arguments, "recipe.yaml", "--run", "run", OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = do("ablate", "--cells", "1")
    assert "1 of 3 cells done" in said
    said = do("ablate")
    assert "3 of 3 cells done" in said
    book = json.loads((folder / "run" / "ablations.json").read_text())["found"]
    assert book["judged_by"] == "choice"
    assert [one["name"] for one in book["variants"]] == ["as it is", "labels alone", "a third"]
    (claim,) = book["claims"]
    assert claim["keeps"] == 0.9
    assert claim["verdict"] in ("seen", "not seen", "cannot tell at this size")
    do("run")
    stages = Run(Folder(str(folder / "run"))).finished_stages()
    assert stages["explain"].manifest().facts["explained"]["rows"] == 48
    for name in ("writer", "reader"):
        stage = stages[f"predict-{name}"]
        rows = stage.read()
        assert rows.schema.equals(WRITTEN)
        facts = stage.manifest().facts
        right = [row["right_choice"] for row in rows.to_pylist()]
        assert facts["choice_accuracy"] == {name: sum(right) / 24}
    shares = book["variants"][0]["by_seed"]
    assert shares == [stages["predict-writer"].manifest().facts["choice_accuracy"]["writer"]]
    report = json.loads((folder / "run" / "report.json").read_text())
    judged = {one["name"]: one for one in report["judged"]}
    assert list(judged) == ["palm", "writer", "reader"]
    assert judged["writer"]["by_choice"]["total"] == 24
    page = (folder / "run" / "report.html").read_text()
    assert "By choice" in page
    assert re.search(r"of how many evaluation rows the right choice is the one that\s+writer", page)


@pytest.mark.slow
def test_the_recipe_finds_a_prompt_and_its_student_learns_of_it(tmp_path):
    report, seconds = run_recipe("zero_shot", tmp_path)
    search = report["prompt_search"]
    assert len(search["rounds"]) == 2
    assert sum(one["proposed"] for one in search["rounds"]) == 8
    assert search["held_out"]["total"] == 60
    zero, few = report["prompts"]
    assert (zero["prompt"], few["prompt"]) == ("as-asked", "few-shot")
    assert zero["tokens_in"] / zero["answers"] < few["tokens_in"] / few["answers"]
    assert {one["name"]: one["role"] for one in report["judged"]} == {
        "teacher": "teacher",
        "student": "student",
    }
    (made,) = report["training_rows"]
    assert 0 < made["explained"]["rows"] <= made["rows"]
    assert seconds < MOST_SECONDS
