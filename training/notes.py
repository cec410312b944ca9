"""How far the workers are: worker 0 writes notes, and the driver reads them.

The two may be on different machines, so the notes go through the stage's folder, and they tell
durations, because clocks differ.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from core.errors import StillhouseError, UseError, WorkError
from core.run import Folder

NOTE_SECONDS = 1.0
"""Between two notes of the worker."""


@dataclass(frozen=True)
class Note:
    """What worker 0 says of itself."""

    step: int
    held_seconds: float
    """Since the worker's process began, and those of this attempt before it."""
    startup_seconds: float
    """Of these, before the first step could begin."""
    done: bool
    workers: int = 0
    """That hold devices."""
    history: tuple[dict[str, Any], ...] = ()
    """An entry for each finished epoch, with its losses."""


@dataclass(frozen=True)
class NoteBox:
    """Where one attempt's notes are."""

    folder: Folder
    attempt: str

    def write(self, note: Note) -> None:
        """Replace the note."""
        self.folder.write_json(f"note.{self.attempt}.json", asdict(note))

    def read(self) -> Note | None:
        """The latest note, or None before the first."""
        name = f"note.{self.attempt}.json"
        if not self.folder.has(name):
            return None
        note = self.folder.read_json(name)
        return Note(**{**note, "history": tuple(note["history"])})

    def ask_to_stop(self) -> None:
        """Have the workers write a checkpoint and end."""
        self.folder.write(f"stop.{self.attempt}", b"")

    def fail(self, error: StillhouseError) -> None:
        """Keep an error that would come again: workers started anew raise it at once."""
        parts = [type(error).__name__, error.place, error.cause, error.mend]
        self.folder.write_json(f"fault.{self.attempt}.json", parts)

    def raise_fault(self) -> None:
        """Raise what earlier workers of this attempt ended with, if that would come again."""
        name = f"fault.{self.attempt}.json"
        if self.folder.has(name):
            kind, *parts = self.folder.read_json(name)
            raise (UseError if kind == UseError.__name__ else WorkError)(*parts)

    def asked_to_stop(self) -> bool:
        """Whether the driver wants the workers to end."""
        return self.folder.has(f"stop.{self.attempt}")


class Reporter:
    """Worker 0's side.

    What it writes while steps are taken goes out behind their back: a write to an object store, or
    until a disk has it, takes as long as a small student's step.
    """

    def __init__(self, box: NoteBox, workers: int) -> None:
        self._box = box
        self._workers = workers
        self._process_began = psutil.Process().create_time()
        # Workers that take over from lost ones go on counting where those were.
        before = box.read() or Note(0, 0.0, 0.0, done=False)
        self._held_before, self._startup_before = before.held_seconds, before.startup_seconds
        self._startup_seconds: float | None = None
        self._history: tuple[dict[str, Any], ...] = ()
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[bool] | None = None
        self._next = 0.0
        self._write(self._note(0))

    def begin(self, step: int, history: list[dict[str, Any]]) -> None:
        """Say that the first step can begin, after the epochs of earlier attempts."""
        self._history = tuple(history)
        self._startup_seconds = self._held()
        self._write(self._note(step))

    def due(self) -> bool:
        """Whether it is time to say where the training is."""
        return time.monotonic() >= self._next

    def tick(self, step: int) -> bool:
        """Say where the training is; true if it shall stop here, as far as the last note found."""
        self._next = time.monotonic() + NOTE_SECONDS
        if self._writing is not None and not self._writing.done():
            return False
        stop = self._writing is not None and self._writing.result()
        self._writing = self._writer.submit(self._write, self._note(step))
        return stop

    def epoch(self, entry: dict[str, Any]) -> None:
        """Tell of a finished epoch with the next note."""
        self._history = (*self._history, entry)

    def end(self, step: int) -> None:
        """Say that all is done."""
        if self._writing is not None:
            self._writing.result()
        self._write(self._note(step, done=True))

    def _held(self) -> float:
        return time.time() - self._process_began

    def _note(self, step: int, *, done: bool = False) -> Note:
        held = self._held()
        startup = held if self._startup_seconds is None else self._startup_seconds
        return Note(
            step,
            self._held_before + held,
            self._startup_before + startup,
            done,
            self._workers,
            self._history,
        )

    def _write(self, note: Note) -> bool:
        """Replace the note, and look whether the driver asks to stop."""
        self._box.write(note)
        return self._box.asked_to_stop()
