"""The paper's two tables of arms: eight of summaries, six of language understanding.

Teachers' answers are recorded ones and students' are given; they are read, measured and gathered as
in any run. Prices are the paper's, of models that are not at hand put to those that are.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.recipe_file import load_recipe
from core.recipe_prompts import as_prompt
from core.run import Folder, Run
from pipelines.asked_texts import fill_in
from stillhouse.methods import recipe_model
from stillhouse.workflow import plan_run
from tests.commands import command
from tests.unit.test_frontier_study import ARTICLES
from tests.unit.test_judges import given
from tests.unit.test_recorded import stage_of, write_lines

PRICES = Path(__file__).parents[2] / "recipes" / "prices_2410.18588.yaml"
MODELS = {"small": "embedded://smollm2-135m-instruct", "large": "embedded://gemma-3-270m"}
PRICED_AS = {
    "small": "meta-llama/Llama-3.1-8B-Instruct",
    "large": "meta-llama/Llama-3.1-70B-Instruct",
}
COMMON = f"""\
name: llama-arms
method: frontier
seed: 0
prices: prices.yaml
inputs: {{file: rows.jsonl}}
evaluation: {{file: rows.jsonl}}
teachers:
  llama:
    backend: recorded
    model: meta-llama/Llama-3.1-405B-Instruct
    files: [llama.jsonl]
    columns: {{system: system, tokens_in: in, tokens_out: out}}
students:
  small: {{family: causal, model: {MODELS["small"]}}}
"""
NEWS = (
    COMMON
    + f"""\
  large: {{family: causal, model: {MODELS["large"]}}}
ask: {{llama: {{prompt: {{library: chain_of_density}}}}}}
task: {{kind: summarization}}
arms: {{plain_teacher: true, undistilled: true}}
"""
)
SUMS = (
    COMMON
    + """\
ask: {llama: {prompt: {library: chain_of_thought}}}
task: {kind: math}
arms: {plain_teacher: true, undistilled: true, undistilled_elaborate: true}
"""
)
SPARSE, DENSE = "Somebody did something there.", "Ada Lovelace met Charles Babbage in London."


def record(folder, recipe, rows, plain, elaborate):
    """What the teacher says to each row behind the plain and the elaborate prompt."""
    records = []
    for row in rows:
        for prompt, said, counts in (
            (recipe.task.prompt, plain(row), {"in": 1025, "out": 80}),
            (recipe.ask["llama"].prompt, elaborate(row), {"in": 1400, "out": 320}),
        ):
            template = as_prompt(prompt)
            asked = fill_in(template.text, template.system, row)
            said_to = {"prompt": asked.turns[0], "system": asked.system}
            records.append({**said_to, "text": said, **counts})
    write_lines(folder / "llama.jsonl", records)


def run_with(folder, text, rows, said, teachers):
    """A run whose teachers have answered and whose students are given; its plan.

    Args:
        said: By student's stage: what the arm is called and what it says to a row.
    """
    (folder / "recipe.yaml").write_text(text)
    (folder / "llama.jsonl").touch()
    prices = PRICES.read_text()
    for student, model in MODELS.items():
        prices = prices.replace(PRICED_AS[student], model)
    (folder / "prices.yaml").write_text(prices)
    write_lines(folder / "rows.jsonl", rows)
    recipe = load_recipe(folder / "recipe.yaml", recipe_model).recipe
    record(folder, recipe, rows, *teachers)
    for stage in ("predict-teachers", "predict-teachers-plain"):
        done = command(folder, "run", "recipe.yaml", "--run", "run", "--until", stage)
        assert done.returncode == 0, done.stderr
    plan = plan_run(
        load_recipe(folder / "recipe.yaml", recipe_model), Run(Folder(str(folder / "run")))
    )
    asked = stage_of(folder, "predict-teachers").read().to_pylist()
    for name in ("extract-text", "extract-text-plain"):
        given(plan, name, facts={"answers": len(rows), "read": len(rows), "outvoted": 0})
    for student in recipe.students:
        for after in ("", "-plain"):
            given(plan, f"train-{student}{after}")
    for stage, (arm, says) in said.items():
        made = [
            {
                "id": row["id"],
                "model": arm,
                "question": row["question"],
                "answer": row["answer"],
                "text": says(row),
                "predicted": says(row),
                "right": None if row["answer"] is None else says(row) == row["answer"],
                "tokens_in": 1025,
                "tokens_out": 80,
            }
            for row in asked
        ]
        given(plan, stage, made, {"accuracy": {}, "unparsed": {arm: 0}, "unanswered": {arm: 0}})
    return plan


def test_the_eight_arms_of_summaries(tmp_path):
    rows = [{"document": text} for text in ARTICLES]
    said = {}
    for student in MODELS:
        said |= {
            f"predict-{student}-undistilled": (f"{student}, undistilled", lambda _: SPARSE),
            f"predict-{student}-plain": (f"{student}, of the plain prompt", lambda _: SPARSE),
            f"predict-{student}": (student, lambda _: DENSE),
        }
    steps = [{"Missing_Entities": "x", "Denser_Summary": DENSE}] * 4
    run_with(tmp_path, NEWS, rows, said, (lambda _: SPARSE, lambda _: json.dumps(steps)))
    for stage in ("density-teachers", "density-students"):
        done = command(tmp_path, "run", "recipe.yaml", "--run", "run", "--until", stage)
        assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (table,) = report["arms"]
    assert [(column["model"], column["head"]) for column in table["columns"]] == [
        ("llama", "plain prompt"),
        ("llama", "elaborate prompt"),
        *(
            (student, head)
            for student in MODELS
            for head in ("undistilled", "distilled, plain prompt", "distilled, elaborate prompt")
        ),
    ]
    (row,) = table["rows"]
    dense = {arm for arm, score in row["scores"].items() if score["value"] > 0}
    assert dense == {"llama", "small", "large"}
    # Table 2 from a run: of the teacher, what all four summaries took; of students, as the paper.
    money = {arm: round(score["per_thousand"], 2) for arm, score in row["scores"].items()}
    assert money["llama, plain prompt"] == 6.74
    assert money["llama"] == 12.58
    assert money["large"] == 3.03
    assert money["small"] == 0.36
    page = (tmp_path / "run" / "report.html").read_text()
    assert "$12.58" in page
    assert "distilled, elaborate prompt" in page


def test_the_six_columns_of_language_understanding(tmp_path):
    rows = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(6)]
    right = {row["question"]: str(n + 1) for n, row in enumerate(rows)}

    def answers(wrong):
        """The first ones wrong, the others right."""
        return lambda row: "0" if int(row["answer"]) <= wrong else row["answer"]

    heads = {
        "small-undistilled": ("small, undistilled", 5),
        "small-undistilled-elaborate": ("small, undistilled, elaborate prompt", 4),
        "small-plain": ("small, of the plain prompt", 3),
        "small": ("small", 2),
    }
    said = {f"predict-{name}": (arm, answers(wrong)) for name, (arm, wrong) in heads.items()}
    teachers = (lambda _: "Answer: 0", lambda row: f"So.\nAnswer: {right[row['question']]}")
    run_with(tmp_path, SUMS, rows, said, teachers)
    assert command(tmp_path, "report", "run").returncode == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (table,) = report["arms"]
    (row,) = table["rows"]
    assert [(c["head"], row["scores"][c["arm"]]["value"]) for c in table["columns"]] == [
        ("plain prompt", 0),
        ("elaborate prompt", 1),
        ("undistilled", pytest.approx(1 / 6)),
        ("undistilled, elaborate prompt", pytest.approx(2 / 6)),
        ("distilled, plain prompt", pytest.approx(3 / 6)),
        ("distilled, elaborate prompt", pytest.approx(4 / 6)),
    ]
