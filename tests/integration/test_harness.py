"""EleutherAI's lm-eval on a student of a run, by tasks whose data is in files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core.recipe_file import load_recipe
from core.run import Folder, Manifest, Run
from stillhouse.methods import recipe_model
from stillhouse.workflow import plan_run
from tests.commands import fresh_command as command
from tests.tiny_models import make_writer
from tests.unit.test_frontier import write_files
from tests.unit.test_recorded import write_lines

SHARED = os.environ.get("STILLHOUSE_SHARED")

CHOICE = """\
task: desks
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "Headline: {{{{question}}}}\\nNews desk:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{choices.index(answer)}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
MMLU = """\
task: mmlu_anatomy_files
dataset_path: csv
dataset_kwargs:
  data_files: {{test: {file}}}
  column_names: [question, a, b, c, d, answer]
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}} A: {{{{a}}}} B: {{{{b}}}} C: {{{{c}}}} D: {{{{d}}}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
GSM8K = """\
task: gsm8k_files
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: generate_until
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer.split('#### ')[-1]}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_teacher):
    """A run whose writing student is there, and task files."""
    folder = tmp_path_factory.mktemp("harness")
    write_files(folder)
    run = Run(Folder(str(folder / "run")))
    plan = plan_run(load_recipe(folder / "recipe.yaml", recipe_model), run)
    stage, made = plan.folder("train-writer"), plan.fingerprints["train-writer"]
    target = stage.folder.child("student").local
    target.mkdir(parents=True)
    make_writer(tiny_teacher, target)
    stage.commit(Manifest(stage.stage, made.whole, made.made_from, [], 30, {}))
    done = command(folder, "run", "recipe.yaml", "--run", "run", "--until", "inputs")
    assert done.returncode == 0, done.stderr
    (folder / "tasks").mkdir()
    rows = [
        {"question": f"Late goal {n}", "choices": ["business", "sports"], "answer": "sports"}
        for n in range(6)
    ]
    write_lines(folder / "desks.jsonl", rows)
    (folder / "tasks" / "desks.yaml").write_text(CHOICE.format(file=folder / "desks.jsonl"))
    return folder


def evaluate(folder, *arguments):
    return command(folder, "evaluate", "run", "--tasks", "tasks", *arguments)


def scores_of(folder):
    found = json.loads((folder / "run" / "harness" / "writer.json").read_text())
    return {(s["task"], s["metric"]): s for s in found["scores"]}, found


def test_a_student_and_its_base_are_judged_and_stand_in_the_report(run):
    done = evaluate(run, "--harness", "desks", "--limit", "4", "--base")
    assert done.returncode == 0, done.stderr
    assert "desks" in done.stdout
    scores, found = scores_of(run)
    score = scores["desks", "acc,none"]
    assert score["rows"] == 4
    assert 0 <= score["value"] <= 1
    assert score["error"] is not None
    assert [(s["task"], s["metric"]) for s in found["base"]] == list(scores)
    assert command(run, "report", "run").returncode == 0
    page = (run / "run" / "report.html").read_text()
    assert "writer by lm-eval" in page


@pytest.mark.slow
@pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with data")
def test_real_files_of_mmlu_and_gsm8k_are_tasks(run):
    data = Path(SHARED) / "data"
    mmlu = data / "mmlu" / "test" / "anatomy_test.csv"
    (run / "tasks" / "mmlu.yaml").write_text(MMLU.format(file=mmlu))
    (run / "tasks" / "gsm8k.yaml").write_text(GSM8K.format(file=data / "gsm8k" / "test.jsonl"))
    done = evaluate(run, "--harness", "mmlu_anatomy_files,gsm8k_files", "--limit", "5")
    assert done.returncode == 0, done.stderr
    scores, _ = scores_of(run)
    assert scores["mmlu_anatomy_files", "acc,none"]["rows"] == 5
    assert scores["gsm8k_files", "exact_match,none"]["value"] == 0.0  # it babbles


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--harness", "no_such_task"], "lm-eval has no task 'no_such_task'"),
        (["--harness", "desks", "--student", "minilm"], "there is none of this name"),
        (["--harness", "gsm8k", "--limit", "1"], "name tasks that read files with --tasks"),
    ],
)
def test_what_cannot_be_judged(run, arguments, said):
    done = evaluate(run, *arguments)
    assert done.returncode in (1, 2)
    assert said in done.stderr
