"""Exactly-once work on rows: Ray Data takes shards to workers, and every shard commits by itself.

A stage's rows are planned on disk (`pipelines.plan`) and cut into shards. A worker answers all
rows of a shard at once, and commits the answers as one file that appears whole or not at all.
After any kill, the same call finds the same shards and runs those whose files are not there.

Every teacher of a stage has a lane: its own rows, its own workers and its own engines, all in one
pass of Ray Data. A lane that fails leaves the others going.

Ray Data's own checkpoints are not used: they need the rows to come from a file reader, load every
id on restore, and count rows that failed as done.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data

from core.errors import StillhouseError, UseError, WorkError
from core.rows import REJECTED
from core.run import StageFolder, count_by_reason
from core.stage import StageContext, StageResult
from core.teacher import Engine, EngineKilled
from pipelines.desk import open_desk
from pipelines.plan import PlannedShard, read_plan, read_shard, write_plan
from pipelines.stage_watch import LaneCount, StageWatch, rows_on_their_way

SHARDS_AT_LEAST = 3
"""Shards that a worker has open at once: the engine has work while one ends and commits."""

ROWS_PER_WORKER = 4096
"""Rows on their way that one worker process can look after."""

WORKER_CPUS = 0.1
"""A worker waits for engines nearly all the time."""

Row = dict[str, Any]

NOTE_SECONDS = 0.5
"""Between two notes of a worker on how far it is."""


@dataclass(frozen=True)
class Rejection:
    """Why a row could not be used."""

    reason: str
    """A short fixed word."""
    detail: str
    """One sentence for a person."""
    original: Any
    """The row, or what a teacher made of it."""


class RowWork(Protocol):
    """What is to be done with one planned row; travels to the workers."""

    schema: pa.Schema
    """Of the rows it makes."""

    async def __call__(self, row: Row) -> Row | Rejection:
        """Answer one row. A row that cannot be answered is rejected, never an exception."""
        ...


@dataclass(frozen=True)
class Lane:
    """The rows of a stage that one teacher answers."""

    engine: Engine
    """What `work` asks."""
    plan: Iterable[Row]
    """All rows in a fixed order, each with its `id`; read only where the plan is not on disk."""
    work: RowWork


def rejected_table(stage: str, rejections: Sequence[tuple[str, Rejection]]) -> pa.Table:
    """Rejected rows as a table; anything that is not JSON is kept as its Python text."""
    return pa.Table.from_pylist(
        [
            {
                "id": row_id,
                "stage": stage,
                "reason": rejection.reason,
                "detail": _storable(rejection.detail),
                "original": _storable(
                    rejection.original
                    if isinstance(rejection.original, str)
                    else json.dumps(rejection.original, ensure_ascii=False, default=repr)
                ),
            }
            for row_id, rejection in rejections
        ],
        schema=REJECTED,
    )


def _storable(text: str) -> str:
    # Arrow holds UTF-8; a lone surrogate is shown as its escape.
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass
class _Lane:
    """A lane with its plan on disk."""

    lane: Lane
    name: str
    plan: list[PlannedShard]
    pending: list[PlannedShard]
    """Those that are not committed."""
    error: StillhouseError | None = None
    """What stopped it."""

    @property
    def workers(self) -> int:
        return math.ceil(rows_on_their_way(self.lane.engine) / ROWS_PER_WORKER)

    def shards_at_once(self, shard_rows: int) -> int:
        """Shards that one worker has open at once."""
        rows = rows_on_their_way(self.lane.engine) / self.workers
        return max(SHARDS_AT_LEAST, math.ceil(rows / shard_rows) + 1)


class ShardWorker:
    """The Ray Data actor that answers shards of one lane."""

    def __init__(
        self, lane: str, work: RowWork, stage: StageFolder, desk: Any, reusable: ray.ObjectRef
    ) -> None:
        self._lane = lane
        self._work = work
        self._stage = stage
        self._desk = desk
        # Rows by id in shards that an earlier plan cut otherwise: found again, not paid again.
        self._reusable: dict[str, str] = ray.get(reusable)
        self._old_shards: dict[str, dict[str, Row]] = {}
        self._answered = 0
        self._noted = 0.0
        self._may_begin = True

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Answer and commit the one shard in a batch.

        An error that stops the lane goes back as a row: Ray Data would wrap it and lose its parts.
        """
        key = str(batch["shard"][0])
        await self._note()
        if not self._may_begin:
            return
        try:
            rows, rejected = await self._answer(key)
        except StillhouseError as error:
            yield _report(self._lane, key, error=error)
        except Exception as error:  # a fault in the work; the next rows would meet it too
            cause = f"the work stopped: {type(error).__name__}: {error}."
            mend = "What was committed is safe. The run's logs/ say more."
            fault = WorkError(f"stage {self._stage.stage}", cause, mend)
            yield _report(self._lane, key, error=fault)
        else:
            yield _report(self._lane, key, rows, rejected)

    async def _answer(self, key: str) -> tuple[int, int]:
        """Answer a shard's rows and commit it; returns how many were kept and rejected."""
        planned = await asyncio.to_thread(read_shard, self._stage.plan, key)
        answers = await asyncio.gather(*map(self._answer_row, planned))
        rows = [answer for answer in answers if not isinstance(answer, Rejection)]
        rejections = [
            (row["id"], answer)
            for row, answer in zip(planned, answers, strict=True)
            if isinstance(answer, Rejection)
        ]
        await asyncio.to_thread(self._commit, key, rows, rejections)
        await self._note()
        return len(rows), len(rejections)

    async def _answer_row(self, row: Row) -> Row | Rejection:
        answer: Row | Rejection
        try:
            answer = self._find(row["id"]) or await self._work(row)
        except EngineKilled:
            detail = "the engine died each time that this row was put to it"
            answer = Rejection("poison", detail, row)
        self._answered += 1
        if time.monotonic() - self._noted > NOTE_SECONDS:
            await self._note()
        return answer

    def _commit(self, key: str, rows: list[Row], rejections: list[tuple[str, Rejection]]) -> None:
        rejected = rejected_table(self._stage.stage, rejections)
        table = pa.Table.from_pylist(rows, schema=self._work.schema)
        self._stage.commit_shard(key, table, rejected)

    async def _note(self) -> None:
        self._noted = time.monotonic()
        answered, self._answered = self._answered, 0
        self._may_begin = await self._desk.note.remote(self._lane, answered)

    def _find(self, row_id: str) -> Row | None:
        key = self._reusable.get(row_id)
        if key is None:
            return None
        if key not in self._old_shards:
            table = self._stage.rows.read_table(f"{key}.parquet")
            self._old_shards[key] = {row["id"]: row for row in table.to_pylist()}
        return self._old_shards[key][row_id]


def _report(
    lane: str, key: str, rows: int = 0, rejected: int = 0, error: StillhouseError | None = None
) -> dict[str, Any]:
    """What the driver hears of a shard; the columns are the same whatever happened."""
    parts = error and [type(error).__name__, error.place, error.cause, error.mend]
    return {
        "lane": [lane],
        "key": [key],
        "rows": [rows],
        "rejected": [rejected],
        "error": [json.dumps(parts) if parts else ""],
    }


def _reported_error(text: str) -> StillhouseError:
    name, *parts = json.loads(text)
    return (UseError if name == UseError.__name__ else WorkError)(*parts)


def run_shards(context: StageContext, lanes: Sequence[Lane]) -> StageResult:
    """Do the planned work that is not committed yet, and return what is committed.

    Args:
        context: Of the stage.
        lanes: One for each teacher, of different rows.

    Raises:
        StillhouseError: From a row's work or from a commit, after the other lanes have ended;
            committed shards stay.
    """
    committed = context.stage.committed_shards()
    planned = [_planned(context, lane, committed) for lane in lanes]
    pending = [lane for lane in planned if lane.pending]
    if pending:
        _answer(context, planned, pending, committed)
        failed = [lane for lane in planned if lane.error is not None]
        if failed:
            raise failed[0].error or AssertionError
    keys = [shard.key for lane in planned for shard in lane.plan]
    rows = sum(context.stage.rows.row_count(f"{key}.parquet") for key in keys)
    result = StageResult(keys, rows, _rejected_reasons(context.stage, keys))
    context.stage.plan.remove()
    return result


def _planned(context: StageContext, lane: Lane, committed: set[str]) -> _Lane:
    name = f"{lane.engine.teacher}.{context.fingerprint[:12]}"
    folder = context.stage.plan
    plan = read_plan(folder, name)
    if plan is None:
        write_plan(folder, name, lane.plan, context.recipe.recipe.shard_rows)
        plan = read_plan(folder, name) or []
    pending = [shard for shard in plan if shard.key not in committed]
    return _Lane(lane, lane.engine.teacher, plan, pending)


def _answer(
    context: StageContext, planned: list[_Lane], pending: list[_Lane], committed: set[str]
) -> None:
    """Send the pending shards through Ray Data."""
    desk = open_desk()
    spare = committed - {shard.key for lane in planned for shard in lane.plan}
    reusable = ray.put(_reusable_rows(context.stage, spare))
    datasets = [_dataset(context, lane, desk, reusable) for lane in pending]
    dataset = reduce(lambda one, other: one.union(other), datasets)
    by_name = {lane.name: lane for lane in pending}
    counts = {
        lane.name: LaneCount(
            lane.lane.engine,
            total=sum(shard.rows for shard in lane.plan),
            before=sum(shard.rows for shard in lane.plan if shard.key in committed),
        )
        for lane in planned
    }
    with StageWatch(context, desk, counts) as watch:
        try:
            for shard in dataset.iter_rows():
                lane = by_name[shard["lane"]]
                if shard["error"]:
                    lane.error = lane.error or _reported_error(shard["error"])
                    watch.stop(lane.name)
                else:
                    watch.committed(lane.name, shard["rows"], shard["rejected"])
        except ray.exceptions.RayError as error:
            raise WorkError(
                f"stage {context.stage.stage}",
                f"Ray stopped the work: {type(error).__name__}.",
                "What was committed is safe; run the same command again. The run's logs/ say more.",
            ) from error
    if watch.verdict is not None:
        raise watch.verdict


def _dataset(
    context: StageContext, lane: _Lane, desk: Any, reusable: ray.ObjectRef
) -> ray.data.Dataset:
    """The pending shards of a lane, on their way through its workers.

    A shard travels by its key: the worker reads the rows from the plan, and writes its answers
    itself, so a repeated call finds the same rows and nothing depends on Ray Data's own writes.
    """
    at_once = lane.shards_at_once(context.recipe.recipe.shard_rows)
    keys = [{"shard": shard.key} for shard in lane.pending]
    return ray.data.from_items(keys, override_num_blocks=len(keys)).map_batches(
        ShardWorker,
        batch_size=1,
        fn_constructor_args=(lane.name, lane.lane.work, context.stage, desk, reusable),
        num_cpus=WORKER_CPUS,
        compute=ray.data.ActorPoolStrategy(
            size=lane.workers,
            max_tasks_in_flight_per_actor=2 * at_once,
            max_concurrent_calls_per_actor=at_once,
        ),
    )


def _reusable_rows(stage: StageFolder, spare: set[str]) -> dict[str, str]:
    return {
        row_id: key
        for key in spare
        for row_id in stage.rows.read_table(f"{key}.parquet", ["id"])["id"].to_pylist()
    }


def _rejected_reasons(stage: StageFolder, keys: list[str]) -> dict[str, int]:
    present = set(stage.rejected.names())
    counts: Counter[str] = Counter()
    for key in keys:
        if f"{key}.parquet" in present:
            counts.update(count_by_reason(stage.rejected.read_table(f"{key}.parquet", ["reason"])))
    return dict(counts.most_common())
