"""Every mistake of a user is three lines on standard error, and an exit status."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.run import Folder, Run
from pipelines.row_work import Rejection, rejected_table
from tests.commands import forked
from tests.permissions import bind_permissions, mode

ROOT = Path(__file__).parents[2]


ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}


def stillhouse(
    *arguments: str, folder: Path = ROOT, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    environment = ENVIRONMENT | (environment or {})
    if not options:
        return forked(*arguments, folder=folder, environment=environment)
    return subprocess.run(
        [sys.executable, "-m", "stillhouse.command_line", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
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
        (["run", "demo.yaml", "--run", "foo://x"], 2, "Unrecognized filesystem type"),
        (["run", "demo.yaml", "--set", "teachers.gemma.model=foo://x"], 2, "s3://bucket"),
        (["run", "demo.yaml", "--set", "name=2024-13-45"], 2, "not YAML"),
        (["run", "demo.yaml", "--set", "name=!foo bar"], 2, "not YAML"),
        (["status", "foo://x"], 2, "Unrecognized filesystem type"),
        (["plan", "demo.yaml", "--profile", "moon"], 2, "no profile"),
        (["status", "absent"], 2, "no run here"),
        (["report", "absent"], 2, "no run here"),
        (["export", "absent"], 2, "no run here"),
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


def refused(*arguments: str, folder: Path, **options: Any) -> list[str]:
    """The three lines of a command that is refused where permissions bind."""
    done = stillhouse(*arguments, folder=folder, preexec_fn=bind_permissions(), **options)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    place, cause, mend = done.stderr.splitlines()
    return [place, cause, mend]


def test_an_input_file_that_may_not_be_read_is_named_with_its_line(recipes):
    with mode(recipes / "demo" / "examples.jsonl", 0):
        place, cause, _ = refused("validate", "demo.yaml", folder=recipes)
    assert place.startswith("demo.yaml, line ")
    assert "task.examples names a file that may not be read" in cause
    with mode(recipes / "demo", 0):
        _, cause, _ = refused("validate", "demo.yaml", folder=recipes)
    assert "task.examples names a file that may not be read" in cause


@pytest.mark.parametrize("closed", [".", "logs", "logs/driver.log", ".lock"])
def test_a_run_that_may_not_be_written_is_named(recipes, tmp_path, closed):
    (tmp_path / "run" / "logs").mkdir(parents=True)
    for name in ("logs/driver.log", ".lock"):
        (tmp_path / "run" / name).touch()
    if closed == "logs":
        (tmp_path / "run" / "logs" / "driver.log").unlink()
    with mode(tmp_path / "run" / closed, 0o555):
        place, cause, mend = refused(
            "run", "demo.yaml", "--run", str(tmp_path / "run"), folder=recipes
        )
    assert str(tmp_path / "run") in place
    assert "no permission to write" in cause
    assert "--run" in mend


def test_a_model_folder_that_may_not_be_read_is_named(recipes, tmp_path):
    (tmp_path / "weights.safetensors").touch(0)
    setting = f"teachers.gemma.model={tmp_path}"
    place, cause, _ = refused("plan", "demo.yaml", "--set", setting, folder=recipes)
    assert place == str(tmp_path / "weights.safetensors")
    assert "may not be read" in cause


def test_a_cache_that_may_not_be_written_is_a_mistake_of_use(recipes, tmp_path):
    script = "from core.models import model_folder; model_folder('embedded://gemma-3-270m')"
    with mode(tmp_path, 0o555):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=ENVIRONMENT | {"STILLHOUSE_CACHE": str(tmp_path)},
            preexec_fn=bind_permissions(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert "core.errors.UseError" in done.stderr
    assert "STILLHOUSE_CACHE" in done.stderr


def test_the_doctor_finds_a_cache_that_may_not_be_written(tmp_path):
    cache = tmp_path / "cache"
    with mode(tmp_path, 0o555):
        done = stillhouse(
            "doctor",
            environment={"STILLHOUSE_CACHE": str(cache)},
            preexec_fn=bind_permissions(),
        )
    assert done.returncode == 1
    assert done.stderr == ""
    assert "Set STILLHOUSE_CACHE" in done.stdout


def test_debug_shows_the_traceback_wherever_it_stands(recipes):
    for arguments in (["--debug", "run", "absent.yaml"], ["run", "absent.yaml", "--debug"]):
        done = stillhouse(*arguments, folder=recipes)
        assert done.returncode == 2
        assert "Traceback" in done.stderr


def test_a_sound_recipe_is_validated_and_planned(recipes, tmp_path):
    assert "sound recipe" in stillhouse("validate", "demo.yaml", folder=recipes).stdout
    planned = stillhouse("plan", "demo.yaml", "--run", str(tmp_path / "run"), folder=recipes)
    assert planned.returncode == 0, planned.stderr
    stages, memory = planned.stdout.split("\n\n", 1)
    assert stages.count("to do") == len(stages.splitlines()) - 1
    assert memory.startswith("Memory of minilm: 22,")
    assert "…" not in memory, "cut"
    assert not (tmp_path / "run").exists(), "a plan writes nothing"


def test_the_schema_is_json():
    schema = json.loads(stillhouse("validate", "--schema", "fewshot_mcqa").stdout)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["task"]["description"]
    assert schema["properties"]["profiles"]["description"]


def test_ctrl_c_says_that_nothing_is_lost(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    os.mkfifo(recipe)  # a command that waits: nobody writes to it
    command = [sys.executable, "-m", "stillhouse.command_line", "run", str(recipe)]
    running = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore the signal, and whatever they start does too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        writer = _open_for_reader(recipe)
        running.send_signal(signal.SIGINT)
        out, told = running.communicate(timeout=30)
    finally:
        running.kill()
    os.close(writer)
    assert running.returncode == 130
    assert out == ""
    assert told.splitlines() == [
        "Stopped.",
        "  What was committed is safe.",
        "  The same command goes on from here.",
    ]


def _open_for_reader(fifo: Path) -> int:
    """Open a FIFO when a process has opened it to read: it then waits for a first byte."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO: no reader yet
            time.sleep(0.05)
    pytest.fail("nobody reads the recipe")


@pytest.mark.parametrize("arguments", [["run"], ["run", "a", "--nonsense"], ["nonsense"]])
def test_a_usage_error_is_typer_s_own(arguments):
    done = stillhouse(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert "Try " in done.stderr


def test_help_loads_no_heavy_library():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stillhouse.command_line", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"ray", "torch", "vllm", "pyarrow", "transformers", "deepspeed"}


def test_help_names_every_command():
    text = stillhouse("--help").stdout
    for command in (
        "run",
        "sweep",
        "validate",
        "plan",
        "status",
        "report",
        "export",
        "serve",
        "doctor",
    ):
        assert f" {command} " in text


def test_rows_are_shown_and_control_characters_are_not_sent_to_the_terminal(tmp_path):
    run = Run(Folder(str(tmp_path / "run")))
    run.folder.write_json(
        "run.json", {"stages": {"write": "w" * 12}, "fingerprints": {"write": "f" * 12}}
    )
    stage = run.stage("write", "w" * 12)
    schema = pa.schema(
        [("id", pa.string()), ("question", pa.string()), ("p", pa.list_(pa.float32()))]
    )
    written = [
        {"id": "1", "question": "Rates \x1b[31mrise", "p": [0.25, 0.75]},
        {"id": "2", "question": "x" * 5000, "p": None},
    ]
    rejected = rejected_table("write", [("3", Rejection("cut", "it did not end", "Late go"))])
    stage.commit_shard("a", pa.Table.from_pylist(written, schema=schema), rejected)
    shown = stillhouse("rows", run.folder.location, "--stage", "write")
    assert shown.returncode == 0, shown.stderr
    assert "Rates \\x1b[31mrise" in shown.stdout
    assert "\x1b[31m" not in shown.stdout
    assert "0.250, 0.750" in shown.stdout
    assert "(5,000 characters)" in shown.stdout.replace("\n", " ")
    found = stillhouse("rows", run.folder.location, "--stage", "write", "--match", "RATES")
    assert "xxx" not in found.stdout
    shown = stillhouse("rows", run.folder.location, "--stage", "write", "--rejected")
    assert "it did not end" in shown.stdout
    unknown = stillhouse("rows", run.folder.location, "--stage", "wrote")
    assert unknown.returncode == 2
    assert "It has: write" in unknown.stderr
