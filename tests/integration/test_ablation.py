"""An ablation by the command that users run, on a real Ray: in parts, killed, with a failure."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from core.run import Folder, Run
from stillhouse.ablation_book import AblationBook, read_ablation
from tests.integration.test_sweep import MARK, RECIPE, finish, start
from tests.leftovers import leftovers
from tests.training_case import CHOICES, draw_headlines
from tests.unit.test_recorded import write_lines

ABLATE = """\
evaluation: {file: test.jsonl, teachers: false}
ablate:
  seeds: [0, 1]
  variants:
    hardly trained: {students.tiny.train.epochs: 1, students.tiny.train.learning_rate: 1.0e-7}
    on what is recorded: {task.labels: teacher}
  claims:
    - {says: training helps, better: as it is, than: hardly trained}
"""


@pytest.fixture
def recipe(tmp_path, tiny_encoder) -> Path:
    rows = [{"question": text, "answer": topic} for topic, text in draw_headlines(300)]
    write_lines(tmp_path / "train.jsonl", rows[:200])
    write_lines(tmp_path / "test.jsonl", rows[200:])
    # Not one question of the training rows: a variant that learns from it has no rows.
    write_lines(tmp_path / "palm.jsonl", [{"prompt": "?", "text": "sports"}])
    text = RECIPE.format(choices=", ".join(CHOICES), base=tiny_encoder, trials=2)
    text = text[: text.index("sweep:")] + ABLATE
    text = text.replace("epochs: 4", "epochs: 4\n      learning_rate: 3.0e-3")
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path / "recipe.yaml"


def done(book: AblationBook | None) -> int:
    return book.found.done if book else 0


def stamps(run: Run) -> dict[Path, int]:
    """The answers of all cells that are done, with the times at which they were committed."""
    found = (run.folder.local / "stages" / "predict-tiny").glob("*/manifest.json")
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.mark.slow
def test_an_ablation_that_was_killed_goes_on_in_parts_and_a_cell_that_fails_stops_no_other(recipe):
    run = Run(Folder(str(recipe.parent / "runs" / "swept")))
    running = start("ablate", recipe)
    deadline = time.monotonic() + 400
    while done(read_ablation(run)) < 1:
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    before = stamps(run)

    # The next four: of three variants with seed 0 one is done, and one has no rows.
    running = start("ablate", recipe, "--cells", "4")
    output, _ = running.communicate(timeout=400)
    assert running.returncode == 1, output
    assert "4 of 6 cells done" in output
    assert "1 of 4 cells failed" in output
    assert "'on what is recorded' with seed 0" in output
    assert before.items() < stamps(run).items(), "a finished cell was done again"
    book = read_ablation(run)
    whole, hardly, recorded = book.found.variants
    assert done(book) == 4
    assert recorded.by_seed == [None, None]
    assert whole.mean > hardly.mean + 0.2
    assert whole.spread is not None
    assert book.found.rows == 100
    assert [claim.verdict for claim in book.found.claims] == ["seen"]
    assert not leftovers(MARK, seconds=60)

    # The variant's rows were what failed: without it, nothing is left to do.
    text = recipe.read_text()
    start_, end = text.index("    on what is recorded"), text.index("  claims:")
    recipe.write_text(text[:start_] + text[end:])
    output = finish("ablate", recipe)
    assert "Everything was done already" in output
    assert "training helps" in output
    assert "Ablation: 4 of 4 cells done" in finish("status", run.folder.local)
    report = json.loads((run.folder.local / "report.json").read_text())
    assert report["ablations"]["device_seconds"] > 0
    assert 'id="ablations"' in (run.folder.local / "report.html").read_text()
