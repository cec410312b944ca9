"""Answers whole shards and commits them: in Ray Data's actors, or in the driver for endpoints."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import StillhouseError, UseError, WorkError
from core.run import StageFolder
from core.teacher import EngineKilled
from pipelines.plan import read_shard
from pipelines.row_work import Rejection, Row, RowWork, rejected_table

if TYPE_CHECKING:
    import ray

OLD_SHARDS = 32
"""Shards of earlier plans that a worker has read and keeps: rows come in nearly the same order."""

NOTE_SECONDS = 1.0
"""Between two notes of a worker on how far it is."""

Note = Callable[[str, int], Awaitable[bool]]
"""`Desk.note`, wherever the desk is."""


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard."""

    lane: str
    key: str
    rows: int = 0
    rejected: int = 0
    found: int = 0
    """Rows of both that an earlier plan had answered."""
    error: StillhouseError | None = None
    """What stops the lane."""


@dataclass(frozen=True)
class LaneWork:
    """What a worker does."""

    lane: str
    """Its name."""
    answer: RowWork
    """What to do with a row."""
    rows_at_once: int
    """Rows on their way at most, over all open shards."""


class ShardWorker:
    """Answers shards of one lane, several at once."""

    def __init__(
        self, work: LaneWork, stage: StageFolder, note: Note, reusable: dict[str, str]
    ) -> None:
        """Describe the work.

        Args:
            work: What to do with rows.
            stage: Where plan and answers are.
            note: Takes the rows answered since the last note, and says whether to go on.
            reusable: By row id, the shard of an earlier plan that kept or rejected it: found
                again, not paid again.
        """
        self._lane = work.lane
        self._work = work.answer
        self._stage = stage
        self._note = note
        self._reusable = reusable
        self._old_shards: dict[str, dict[str, Row | Rejection]] = {}
        self._answered = 0
        self._noted = 0.0
        self._stopped = False
        self._entrance = asyncio.Lock()
        self._room = asyncio.Semaphore(work.rows_at_once)

    async def answer(self, key: str) -> ShardReport | None:
        """Answer and commit a shard; None where the lane was stopped before its first row.

        A shard that is committed already is only counted: Ray gives it to a worker again where
        the word of the commit was lost with a node.
        """
        try:
            found = await asyncio.to_thread(self._committed, key) or await self._answer(key)
        except StillhouseError as error:
            return ShardReport(self._lane, key, error=error)
        except Exception as error:  # a fault in the work; the next rows would meet it too
            cause = f"the work stopped: {type(error).__name__}: {error}."
            mend = "What was committed is safe. The run's logs/ say more."
            fault = WorkError(f"stage {self._stage.stage}", cause, mend)
            return ShardReport(self._lane, key, error=fault)
        if found is None:
            return None
        rows, rejected, reused = found
        return ShardReport(self._lane, key, rows, rejected, reused)

    async def _answer(self, key: str) -> tuple[int, int, int] | None:
        if self._stopped:
            return None
        planned = await asyncio.to_thread(read_shard, self._stage.plan, key)
        # One shard enters after the other, so that those are ended first that were begun first, and
        # a word to stop leaves no more than one of them half asked.
        async with self._entrance:
            if not await self._tell():
                return None
            begun = [await self._begin(row) for row in planned]
        answers = await asyncio.gather(*begun)
        rows = [answer for answer in answers if not isinstance(answer, Rejection)]
        rejections = [
            (row["id"], answer)
            for row, answer in zip(planned, answers, strict=True)
            if isinstance(answer, Rejection)
        ]
        await asyncio.to_thread(self._commit, key, rows, rejections)
        await self._tell()
        found = sum(row["id"] in self._reusable for row in planned)
        return len(rows), len(rejections), found

    def _committed(self, key: str) -> tuple[int, int, int] | None:
        """Rows and rejected rows of a shard that this attempt has committed already."""
        file = f"{key}.parquet"
        if not self._stage.rows.has(file):
            return None
        rows, rejected = self._stage.rows.row_count(file), 0
        if self._stage.rejected.has(file):
            rejected = self._stage.rejected.row_count(file)
        return rows, rejected, 0

    async def _begin(self, row: Row) -> asyncio.Task[Row | Rejection]:
        """Start on a row as soon as there is room for it."""
        await self._room.acquire()
        return asyncio.create_task(self._answer_row(row))

    async def _answer_row(self, row: Row) -> Row | Rejection:
        answer: Row | Rejection
        try:
            answer = self._find(row) or await self._work(row)
        except EngineKilled:
            detail = "the engine died each time that this row was put to it"
            answer = Rejection("poison", detail, row)
        finally:
            self._room.release()
        self._answered += 1
        if time.monotonic() - self._noted > NOTE_SECONDS:
            await self._tell()
        return answer

    def _commit(self, key: str, rows: list[Row], rejections: list[tuple[str, Rejection]]) -> None:
        rejected = rejected_table(self._stage.stage, rejections, self._lane)
        table = pa.Table.from_pylist(rows, schema=self._work.schema)
        self._stage.commit_shard(key, table, rejected)

    async def _tell(self) -> bool:
        self._noted = time.monotonic()
        answered, self._answered = self._answered, 0
        going_on = await self._note(self._lane, answered)
        self._stopped = not going_on
        return going_on

    def _find(self, planned: Row) -> Row | Rejection | None:
        """The answer of an earlier plan, with what this plan has the row carry along."""
        key = self._reusable.get(planned["id"])
        if key is None:
            return None
        if key not in self._old_shards:
            if len(self._old_shards) == OLD_SHARDS:
                self._old_shards.pop(next(iter(self._old_shards)))
            self._old_shards[key] = self._read(f"{key}.parquet")
        old = self._old_shards[key][planned["id"]]
        if isinstance(old, Rejection):
            return old
        return {name: planned.get(name, value) for name, value in old.items()}

    def _read(self, file: str) -> dict[str, Row | Rejection]:
        """What a committed shard kept and rejected, by row id."""
        found: dict[str, Row | Rejection] = {}
        if self._stage.rejected.has(file):
            for row in self._stage.rejected.read_table(file).to_pylist():
                found[row["id"]] = Rejection(row["reason"], row["detail"], row["original"])
        kept = self._stage.rows.read_table(file).to_pylist()
        return found | {row["id"]: row for row in kept}


class RayShardWorker:
    """A `ShardWorker` as the actor of a Ray Data pipeline: a batch is the key of one shard."""

    def __init__(
        self, work: LaneWork, stage: StageFolder, desk: Any, reusable: ray.ObjectRef
    ) -> None:
        import ray

        async def note(name: str, answered: int) -> bool:
            going_on: bool = await desk.note.remote(name, answered)
            return going_on

        self._worker = ShardWorker(work, stage, note, ray.get(reusable))

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Answer one shard. An error goes back as a row: Ray Data would wrap it and lose parts."""
        report = await self._worker.answer(str(batch["shard"][0]))
        if report is not None:
            yield {name: [value] for name, value in as_row(report).items()}


def as_row(report: ShardReport) -> dict[str, Any]:
    """A report as a row of plain values; the columns are the same whatever happened."""
    error = report.error
    parts = error and [type(error).__name__, error.place, error.cause, error.mend]
    return {**asdict(report), "error": json.dumps(parts) if parts else ""}


def from_row(row: dict[str, Any]) -> ShardReport:
    """The report that a row was made of."""
    if not row["error"]:
        return ShardReport(row["lane"], row["key"], row["rows"], row["rejected"], row["found"])
    name, *parts = json.loads(row["error"])
    error = (UseError if name == UseError.__name__ else WorkError)(*parts)
    return ShardReport(row["lane"], row["key"], error=error)


async def answer_here(
    worker: ShardWorker, keys: list[str], at_once: int, report: Callable[[ShardReport], None]
) -> None:
    """Answer shards in this process, some at once, each reported when it is committed."""
    waiting = iter(keys)

    async def go() -> None:
        for key in waiting:  # shared: each takes the next shard
            done = await worker.answer(key)
            if done is not None:
                report(done)

    await asyncio.gather(*(go() for _ in range(at_once)))
