"""What a run shows while a stage goes on."""

import io

import pytest
from rich.console import Console

from core.prices import PriceBook
from core.run import Folder, Run
from core.stage import Progress
from stillhouse.display import RunDisplay


def test_time_left_is_told_by_the_rows_after_the_first(tmp_path, monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    monkeypatch.setattr("stillhouse.display.time.monotonic", lambda: now)
    out = io.StringIO()
    run = Run(Folder(str(tmp_path / "run")))
    console = Console(file=out, width=200)
    display = RunDisplay(PriceBook(currency="USD"), run, tmp_path / "log", console)
    display.begin(["write"])
    display.started("write")

    def line(seconds: float, done: int) -> str:
        nonlocal now
        now += seconds
        display.progress("write", Progress(done=done, total=101))
        return out.getvalue().splitlines()[-1]

    assert line(0, 0) == "write starts"  # lines come a few seconds apart
    # An engine that started for a minute and a half answers its first row.
    assert line(90, 1) == "write: 1 of 101 rows"
    assert line(10, 21) == "write: 21 of 101 rows, 2.0 rows/s, 40s left"
    assert line(10, 61) == "write: 61 of 101 rows, 3.0 rows/s, 13s left"
