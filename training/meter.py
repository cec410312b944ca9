"""What the driver makes of the workers' notes: the live display and the ledger's entry."""

from __future__ import annotations

import time

from core.ledger import Entry
from core.stage import Progress, StageContext
from training.job import Job
from training.notes import Note

ENTRY_SECONDS = 2.0
"""Between two rewrites of the ledger's entry."""


class Meter:
    """Shows the progress of one attempt and keeps its entry in the ledger."""

    def __init__(self, context: StageContext, job: Job) -> None:
        self._context = context
        self._job = job
        self._began = time.monotonic()
        self._note = Note(0, 0.0, 0.0, done=False)
        self._note_seen: float | None = None
        self._entry_written = 0.0

    def refresh(self) -> None:
        """Read the latest note, show it, and bring the ledger up to date every few seconds."""
        note = self._job.box.read()
        if note is not None and note != self._note:
            self._note, self._note_seen = note, time.monotonic()
        entry = self._entry(0)
        self._context.show(
            Progress(
                done=self._note.step,
                total=self._job.schedule.steps,
                unit="steps",
                used=(entry,),
                epochs=self._note.history,
            )
        )
        if time.monotonic() - self._entry_written >= ENTRY_SECONDS:
            self._context.write_entry(entry)
            self._entry_written = time.monotonic()

    def close(self, rows: int) -> None:
        """Write the attempt's last entry.

        Args:
            rows: Trained on, if the student is there.
        """
        self._context.write_entry(self._entry(rows))

    def _entry(self, rows: int) -> Entry:
        note, devices = self._note, self._note.workers * self._job.train.device.count
        startup, useful, idle = note.startup_seconds, note.held_seconds - note.startup_seconds, 0.0
        since = 0.0 if self._note_seen is None else time.monotonic() - self._note_seen
        if note.done:
            idle = since
        elif useful > 0:
            useful += since
        else:
            startup += since
        return Entry(
            stage=self._context.stage.stage,
            attempt=self._context.attempt,
            device=self._job.train.device.kind,
            model=self._job.student.model,
            rows=rows,
            startup_seconds=startup * devices,
            useful_seconds=useful * devices,
            idle_seconds=idle * devices,
            wall_seconds=time.monotonic() - self._began,
        )
