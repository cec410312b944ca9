"""The recipes of 2410.18588 whole, with embedded models on two cores: real teachers, real students.

What is tested is that every arm comes to its end and stands in the tables; models of this size on
rows of this number measure nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MOST_SECONDS = 15 * 60
"""Of each recipe, on two cores that nothing else uses."""


def run_recipe(name, folder):
    """Run a recipe by its profile `local`; its report, and the seconds that it took."""
    began = time.monotonic()
    file = ROOT / "recipes" / f"{name}.yaml"
    command = [sys.executable, "-m", "stillhouse.command_line", "run", file]
    done = subprocess.run(
        [*command, "--profile", "local", "--run", folder / "run"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "run" / "report.json").read_text())
    assert not report["warnings"], "every stage is done"
    return report, time.monotonic() - began


@pytest.mark.slow
def test_the_eight_arms_of_the_table_of_summaries(tmp_path):
    """Five of them here, where there is one student: the table's others are the second one's."""
    report, seconds = run_recipe("frontier_summarize", tmp_path)
    (table,) = report["arms"]
    assert table["measure"] == "entity_density"
    assert [column["arm"] for column in table["columns"]] == [
        *("teacher, plain prompt", "teacher", "small, undistilled"),
        *("small, of the plain prompt", "small"),
    ]
    (row,) = table["rows"]
    for score in row["scores"].values():
        assert 0 <= score["value"] < 1
        assert score["tokens_out"] > 0
        assert score["per_thousand"] > 0
    # Four summaries are written for one, and billed.
    scores = row["scores"]
    assert scores["teacher"]["tokens_in"] > scores["teacher, plain prompt"]["tokens_in"]
    assert seconds < MOST_SECONDS


@pytest.mark.slow
def test_the_six_columns_of_the_table_of_language_understanding(tmp_path):
    report, seconds = run_recipe("frontier_nlu", tmp_path)
    (table,) = report["arms"]
    assert table["measure"] == "accuracy"
    assert [column["arm"] for column in table["columns"]] == [
        *("teacher, plain prompt", "teacher"),
        *("small, undistilled", "small, undistilled, elaborate prompt"),
        *("small, of the plain prompt", "small"),
    ]
    assert [row["dataset"] for row in table["rows"]] == ["gsm8k", "anli"]
    for row in table["rows"]:
        assert len(row["scores"]) == 6
    (choice,) = report["choices"]
    for dataset in ("gsm8k", "anli"):
        for what in ("sampling", "prompt"):
            mine = [c for c in choice["candidates"] if (c["dataset"], c["what"]) == (dataset, what)]
            assert len(mine) == 2
            assert sum(candidate["chosen"] for candidate in mine) == 1
    assert seconds < MOST_SECONDS


@pytest.mark.slow
def test_the_table_of_conversations(tmp_path):
    report, seconds = run_recipe("frontier_chat", tmp_path)
    (table,) = report["arms"]
    assert table["measure"] == "judge"
    arms = ["teacher", "small, undistilled", "small"]
    assert [column["arm"] for column in table["columns"]] == arms
    beside = report["side_by_side"]["rows"][0]
    assert [one["arm"] for one in beside["arms"]] == arms
    assert all(len(one["replies"]) == len(beside["turns"]) == 2 for one in beside["arms"])
    assert seconds < MOST_SECONDS
    sheet = tmp_path / "sheet.csv"
    command = [sys.executable, "-m", "stillhouse.command_line", "ratings", "export"]
    subprocess.run([*command, tmp_path / "run", sheet], cwd=ROOT, check=True)
    assert "undistilled" not in sheet.read_text(encoding="utf-8-sig")
