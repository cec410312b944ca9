"""Every mistake of a user is three lines on standard error, and an exit status."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def stillhouse(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stillhouse.command_line", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def recipes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    shutil.copytree(ROOT / "recipes", folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["run", "absent.yaml"], 2, "no such recipe"),
        (["run", "demo.yaml", "--set", "nonsense=1"], 2, "not a key"),
        (["run", "demo.yaml", "--set", "generate.decomposed.rows=many"], 2, "valid integer"),
        (["run", "demo.yaml", "--set", "task.examples=absent.jsonl"], 2, "does not exist"),
        (["run", "demo.yaml", "--set", "task.choices=[one]"], 2, "at least two"),
        (["run", "demo.yaml", "--set", "teachers.gemma.model=embedded://x"], 2, "no embedded"),
        (["run", "demo.yaml", "--set", "teachers.gemma.model=what is this"], 2, "hub id"),
        (["run", "demo.yaml", "--run", "demo.yaml"], 2, "a file stands where"),
        (["plan", "demo.yaml", "--profile", "moon"], 2, "no profile"),
        (["status", "absent"], 2, "no run here"),
        (["report", "absent"], 2, "no run here"),
        (["serve", "absent"], 2, "no run here"),
    ],
)
def test_a_mistake_is_told_in_three_lines(recipes, arguments, status, says):
    done = stillhouse(*arguments, folder=recipes)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback_wherever_it_stands(recipes):
    for arguments in (["--debug", "run", "absent.yaml"], ["run", "absent.yaml", "--debug"]):
        done = stillhouse(*arguments, folder=recipes)
        assert done.returncode == 2
        assert "Traceback" in done.stderr


def test_a_sound_recipe_is_validated_and_planned(recipes, tmp_path):
    assert "sound recipe" in stillhouse("validate", "demo.yaml", folder=recipes).stdout
    planned = stillhouse("plan", "demo.yaml", "--run", str(tmp_path / "run"), folder=recipes)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.count("to do") == len(planned.stdout.splitlines()) - 1
    assert not (tmp_path / "run").exists(), "a plan writes nothing"


def test_the_schema_is_json():
    schema = json.loads(stillhouse("validate", "--schema", "fewshot_mcqa").stdout)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["task"]["description"]


def test_help_names_every_command():
    text = stillhouse("--help").stdout
    for command in ("run", "validate", "plan", "status", "report", "serve", "doctor"):
        assert f" {command} " in text
