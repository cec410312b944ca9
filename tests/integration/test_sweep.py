"""A sweep by the command that users run, on a real Ray: killed half-way, it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.run import Folder, Run
from stillhouse.sweep_book import SweepBook, read_book
from tests.leftovers import leftovers, marked
from tests.training_case import CHOICES, draw_headlines
from tests.unit.test_recorded import write_lines

ROOT = Path(__file__).parents[2]
MARK, ENVIRONMENT = marked()
TRIALS = 6

RECIPE = """\
name: swept
method: frontier
inputs: {{file: train.jsonl}}
teachers:
  palm: {{backend: recorded, model: palm-540b, files: [palm.jsonl]}}
ask:
  palm: {{prompt: "{{{{ question }}}}"}}
task:
  kind: choices
  choices: [{choices}]
  prompt: "{{{{ question }}}}"
  gold: answer
  labels: gold
students:
  tiny:
    model: {base}
    train:
      epochs: 4
      max_length: 16
      device: {{kind: cpu-core, cpus: 1}}
sweep:
  space:
    students.tiny.train.learning_rate: {{loguniform: [1.0e-5, 1.0e-2]}}
    students.tiny.train.batch_size: {{choice: [8, 16]}}
  trials: {trials}
  reduction_factor: 2
"""


@pytest.fixture
def recipe(tmp_path, tiny_encoder) -> Path:
    rows = [{"question": text, "answer": topic} for topic, text in draw_headlines(200)]
    write_lines(tmp_path / "train.jsonl", rows)
    write_lines(tmp_path / "palm.jsonl", [{"prompt": "?", "text": "sports"}])
    text = RECIPE.format(choices=", ".join(CHOICES), base=tiny_encoder, trials=TRIALS)
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path / "recipe.yaml"


def start(command: str, recipe: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "stillhouse.command_line", command, str(recipe), *arguments],
        cwd=recipe.parent,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(command: str, recipe: Path, *arguments: str) -> str:
    running = start(command, recipe, *arguments)
    output, _ = running.communicate(timeout=400)
    assert running.returncode == 0, output
    assert "Traceback" not in output
    return output


def settled(run: Run) -> SweepBook | None:
    """The book, once half of the trials are done and others are not."""
    book = read_book(run)
    done = sum(trial.settled for trial in book.trials) if book else 0
    return book if TRIALS / 2 <= done < TRIALS else None


def work_of(run: Run, book: SweepBook) -> dict[Path, int]:
    """All files of the students that are done, with the times of change, and the entries of all
    trainings that are.
    """
    found = {}
    settled = [trial for trial in book.trials if trial.settled]
    works = [trial.works["train-tiny"] for trial in settled]
    for trial in settled:
        stage = run.stage("train-tiny", trial.works["train-tiny"]).folder.local
        if trial.state == "finished":
            found |= {path: path.stat().st_mtime_ns for path in stage.rglob("*.*")}
    for path in (run.folder.local / "ledger").iterdir():
        if path.suffix == ".json" and json.loads(path.read_text())["work"] in works:
            found[path] = 0  # rewritten every few seconds, while its trial is closed
    return found


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_without_doing_finished_trials_again(recipe):
    run = Run(Folder(str(recipe.parent / "runs" / "swept")))
    first = start("sweep", recipe)
    deadline = time.monotonic() + 400
    while (half := settled(run)) is None:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = work_of(run, half)
    assert any(path.name == "manifest.json" for path in before)

    output = finish("sweep", recipe)
    book = read_book(run)
    assert all(trial.settled for trial in book.trials)
    after = work_of(run, half)
    assert after == before, "a finished trial was done again"
    for old, new in zip(half.trials, book.trials, strict=True):
        assert (old.number, old.values) == (new.number, new.values)
        # One that was stopped while it committed is done, and known to be when the sweep goes on.
        if old.settled and (old.state, new.state) != ("stopped", "finished"):
            assert (old.state, old.history) == (new.state, new.history)
    for trial in book.trials:
        assert trial.device_seconds > 0
        if trial.state == "finished":
            assert len(trial.history) == 4
        stage = run.stage("train-tiny", trial.works["train-tiny"]).folder.local
        assert stage.exists() == (trial.state == "finished"), "what was stopped is cleared away"

    scores = {t.number: t.score("validation_loss") for t in book.trials if t.state == "finished"}
    assert scores[book.best] == min(scores.values())
    best = book.trials[book.best - 1]
    assert f"best so far trial {best.number}" in output
    train = run.state()["recipe"]["students"]["tiny"]["train"]
    assert train["learning_rate"] == best.values["students.tiny.train.learning_rate"]
    assert run.finished_stages()["train-tiny"].folder.location.endswith(
        best.works["train-tiny"][:12]
    )
    assert not (run.folder.local / "sweep").exists()

    # The recipe says nothing of the best values, and the run goes on with them all the same.
    assert "Everything was done already" in finish("run", recipe)
    assert "Everything was done already" in finish("sweep", recipe)
    report = json.loads((run.folder.local / "report.json").read_text())
    assert report["sweep"]["best"] == best.number
    in_all = sum(trial.device_seconds for trial in book.trials)
    assert report["total"]["useful_seconds"] <= in_all
    assert not leftovers(MARK, seconds=60)
