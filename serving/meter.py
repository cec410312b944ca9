"""What teacher and student use while they are compared: into the ledger after every turn."""

from __future__ import annotations

import time
from types import TracebackType

import ray

from core.engine_entry import engine_entry
from core.ledger import Entry
from core.stage import StageContext
from core.teacher import Engine
from serving.load import LoadResult


class CompareMeter:
    """Watches both models from the student's start-up to the end of the block."""

    def __init__(self, context: StageContext, engine: Engine, student: str) -> None:
        self._context = context
        self._engine = engine
        self._student = student
        self._began = time.monotonic()
        self._startup: float | None = None
        self._teacher_turns: list[LoadResult] = []
        self._student_turns: list[LoadResult] = []

    def __enter__(self) -> CompareMeter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._engine.accounted = self._record()
        except ray.exceptions.RayError:
            if kind is None:  # otherwise the engine's death is what the error on its way tells
                raise

    def ready(self) -> None:
        """Note that the student's start-up ends here."""
        self._startup = time.monotonic() - self._began

    def turn(self, teacher: LoadResult, student: LoadResult) -> None:
        """Note one turn of both, and write what they have used so far."""
        self._teacher_turns.append(teacher)
        self._student_turns.append(student)
        self._record()

    def _record(self) -> dict[str, float]:
        statistics = self._engine.statistics()
        answered_rows = _rows(self._teacher_turns)
        wall_seconds = time.monotonic() - self._began
        self._context.write_entry(
            engine_entry(self._context, self._engine, statistics, answered_rows, wall_seconds)
        )
        self._context.write_entry(self._student_entry())
        return statistics

    def _student_entry(self) -> Entry:
        """The replicas are held throughout: useful in their own turns, idle in the teacher's."""
        serve = self._context.recipe.training_recipe.serve
        devices = serve.device.count * max(1, serve.scale.min)
        held = time.monotonic() - self._began
        startup = held if self._startup is None else self._startup
        useful = sum(turn.wall_seconds for turn in self._student_turns)
        return Entry(
            stage=self._context.stage.stage,
            attempt=self._context.attempt,
            device=serve.device.kind,
            model=self._student,
            requests=sum(len(turn.replies) for turn in self._student_turns),
            rows=_rows(self._student_turns),
            startup_seconds=startup * devices,
            useful_seconds=useful * devices,
            idle_seconds=(held - startup - useful) * devices,
            wall_seconds=held,
        )


def _rows(turns: list[LoadResult]) -> int:
    return sum(len(turn.answered) for turn in turns)
