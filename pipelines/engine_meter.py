"""What a stage uses of its engines: into the ledger and onto the screen, once a second."""

from __future__ import annotations

import threading
import time

import ray

from core.engine_entry import engine_entry
from core.stage import Progress, StageContext
from core.teacher import Engine


class EngineMeter:
    """Watches a pool while a stage uses it.

    Start-up, and idle time since the stage before, fall to the stage that uses the engines next.
    """

    def __init__(self, context: StageContext, engine: Engine) -> None:
        self._context = context
        self._engine = engine
        self._began = time.monotonic()
        self._rows = 0
        self._done = 0
        self._total = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> EngineMeter:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self._engine.accounted = self._record()
        except ray.exceptions.RayError:
            if kind is None:  # otherwise the engine's death is what the error on its way tells
                raise

    def advance(self, done: int, total: int, rows: int = 0) -> None:
        """Note how far the stage is, and how many more rows this attempt has committed."""
        self._done, self._total = done, total
        self._rows += rows

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self._record()

    def _record(self) -> dict[str, float]:
        now = self._engine.statistics()
        wall_seconds = time.monotonic() - self._began
        entry = engine_entry(self._context, self._engine, now, self._rows, wall_seconds)
        self._context.write_entry(entry)
        self._context.show(
            Progress(
                done=self._done,
                total=self._total,
                tokens=entry.tokens_in + entry.tokens_out,
                device=entry.device,
                device_seconds=entry.device_seconds,
            )
        )
        return now
