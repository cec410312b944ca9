"""Notes of a training go out behind the back of its steps."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest

from core.run import Folder
from training import notes
from training.notes import Note, NoteBox, Reporter


@dataclass(frozen=True)
class SlowBox(NoteBox):
    """On a store that answers when the test lets it."""

    answers: threading.Event = field(default_factory=threading.Event)

    def write(self, note: Note) -> None:
        if note.step:
            assert self.answers.wait(30)
        super().write(note)


def eventually(look):
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_slow_store_holds_no_step_back(tmp_path):
    box = SlowBox(Folder(str(tmp_path)), "a")
    reporter = Reporter(box, workers=2)
    reporter.begin(0, [{"epoch": 1}])
    assert reporter.due()
    began = time.monotonic()
    assert [reporter.tick(step) for step in (1, 2, 3)] == [False] * 3
    assert time.monotonic() - began < 5
    assert not reporter.due(), "the next note is a second away"
    assert box.read().step == 0
    box.answers.set()
    eventually(lambda: box.read().step == 1)
    reporter.end(4)
    last = box.read()
    assert (last.step, last.done, last.workers, last.history) == (4, True, 2, ({"epoch": 1},))
    assert 0 < last.startup_seconds <= last.held_seconds


def test_the_word_to_stop_comes_with_the_next_note(tmp_path):
    box = NoteBox(Folder(str(tmp_path)), "a")
    reporter = Reporter(box, workers=1)
    reporter.begin(0, [])
    box.ask_to_stop()
    eventually(lambda: reporter.tick(1))


def test_a_store_that_fails_ends_the_training(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("disk full")

    reporter = Reporter(NoteBox(Folder(str(tmp_path)), "a"), workers=1)
    reporter.begin(0, [])
    monkeypatch.setattr(notes.NoteBox, "write", fails)
    with pytest.raises(OSError, match="disk full"):
        eventually(lambda: reporter.tick(1))
