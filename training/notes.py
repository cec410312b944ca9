"""How far the workers are: worker 0 writes notes, and the driver reads them.

The two may be on different machines, so the notes go through the stage's folder, and they tell
durations, because clocks differ.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import psutil

from core.run import Folder

NOTE_SECONDS = 1.0
"""Between two notes of the worker."""


@dataclass(frozen=True)
class Note:
    """What worker 0 says of itself."""

    step: int
    held_seconds: float
    """Since the worker's process began."""
    startup_seconds: float
    """Of these, before the first step could begin."""
    done: bool


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
        return Note(**self.folder.read_json(name)) if self.folder.has(name) else None

    def ask_to_stop(self) -> None:
        """Have the workers write a checkpoint and end."""
        self.folder.write(f"stop.{self.attempt}", b"")

    def asked_to_stop(self) -> bool:
        """Whether the driver wants the workers to end."""
        return self.folder.has(f"stop.{self.attempt}")


class Reporter:
    """Worker 0's side."""

    def __init__(self, box: NoteBox) -> None:
        self._box = box
        self._process_began = psutil.Process().create_time()
        self._startup_seconds: float | None = None
        self._write(0)

    def begin(self, step: int) -> None:
        """Say that the first step can begin."""
        self._startup_seconds = self._held()
        self._write(step)

    def tick(self, step: int) -> bool:
        """Say where the training is, once a second; true if it shall stop here."""
        if time.monotonic() < self._next:
            return False
        self._write(step)
        return self._box.asked_to_stop()

    def end(self, step: int) -> None:
        """Say that all is done."""
        self._write(step, done=True)

    def _held(self) -> float:
        return time.time() - self._process_began

    def _write(self, step: int, *, done: bool = False) -> None:
        held = self._held()
        startup = held if self._startup_seconds is None else self._startup_seconds
        self._box.write(Note(step, held, startup, done))
        self._next = time.monotonic() + NOTE_SECONDS
