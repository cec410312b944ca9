"""Exactly-once work on rows: Ray Data takes shards to workers, and every shard commits by itself.

A stage's rows are planned on disk (`pipelines.plan`) and cut into shards. A worker keeps as many
rows on their way as its engines can use, from several shards, and commits the answers of a shard as
one file that appears whole or not at all. After any kill, the same call finds the same shards and
runs those whose files are not there.

Every teacher of a stage has a lane: its own rows, its own workers and its own engines, all in one
pass. Workers that ask engines are Ray Data's; an endpoint is asked from the driver, where its
limits and its key are in one place. A lane that fails leaves the others going.

Ray Data's own checkpoints are not used: they need the rows to come from a file reader, load every
id on restore, and count rows that failed as done.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import StillhouseError, WorkError
from core.placement import placed
from core.run import StageFolder, count_by_reason
from core.stage import StageContext, StageResult
from core.teacher import Engine
from pipelines.desk import StageDesk
from pipelines.plan import PlannedShard, read_plan, sample_rows, write_plan
from pipelines.row_work import Row, RowWork
from pipelines.shard_worker import (
    LaneWork,
    RayShardWorker,
    ShardReport,
    ShardWorker,
    answer_here,
    from_row,
)
from pipelines.stage_watch import LaneCount, StageWatch, rows_on_their_way, workers_for

if TYPE_CHECKING:
    import ray
    import ray.data

SPARE_SHARDS = 4
"""Shards that are open for every one whose rows are all on their way. A shard ends with its longest
answer: while that one is written, rows of other shards keep the engine full."""

PASSING = ["failed", "poison"]
"""Reasons of rejected rows that may be gone another time: a longer plan asks these rows again."""

WORKER_CPUS = 0.1
"""A worker waits for engines nearly all the time."""


@dataclass(frozen=True)
class Lane:
    """The rows of a stage that one teacher answers."""

    engine: Engine
    """What `work` asks."""
    plan: Iterable[Row]
    """All rows in a fixed order, each with its `id`; read only where the plan is not on disk."""
    work: RowWork
    maker: str = ""
    """A hash of all that decides this lane's answers beside its rows, where other works of the
    stage may have the same lane: their shards are taken over, and nobody is asked again. Where it
    is empty none are."""


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
        return workers_for(self.lane.engine)

    @property
    def work(self) -> LaneWork:
        """What each worker does."""
        rows_at_once = math.ceil(rows_on_their_way(self.lane.engine) / self.workers)
        return LaneWork(self.name, self.lane.work, rows_at_once)

    def shards_at_once(self, shard_rows: int) -> int:
        """Shards that one worker has open: what a kill can cost."""
        return SPARE_SHARDS * math.ceil(self.work.rows_at_once / shard_rows)


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
    committed |= _take_over(context.stage, planned)
    pending = [lane for lane in planned if lane.pending]
    if pending:
        _answer(context, planned, pending, committed)
        failed = [lane for lane in planned if lane.error is not None]
        if failed:
            raise failed[0].error or AssertionError
    keys = [shard.key for lane in planned for shard in lane.plan]
    rows = {
        lane.name: sum(context.stage.rows.row_count(f"{shard.key}.parquet") for shard in lane.plan)
        for lane in planned
    }
    rejected = _rejected_reasons(context.stage, keys)
    result = StageResult(keys, sum(rows.values()), rejected, {"rows_by_teacher": rows})
    if context.sample is None:  # the plan of all rows outlives a sample
        context.stage.plan.remove()
    return result


def _planned(context: StageContext, lane: Lane, committed: set[str]) -> _Lane:
    name = f"{lane.engine.teacher}.{context.fingerprint[:12]}"
    folder = context.stage.plan
    plan = read_plan(folder, name)
    if plan is None:
        rows = lane.plan if context.sample is None else sample_rows(lane.plan, context.sample)
        write_plan(folder, name, rows, context.recipe.recipe.shard_rows, lane.maker)
        plan = read_plan(folder, name) or []
    pending = [shard for shard in plan if shard.key not in committed]
    return _Lane(lane, lane.engine.teacher, plan, pending)


def _take_over(stage: StageFolder, lanes: list[_Lane]) -> set[str]:
    """Copy pending shards that another work of the stage has committed, and return their names.

    A stage asks several teachers; where the recipe changes for one of them the stage is another
    work, and the others' lanes are as they were. A shard's name says which rows it has and who
    made them, so equal names are equal work.
    """
    wanted = {shard.key for lane in lanes if lane.lane.maker for shard in lane.pending}
    if not wanted:
        return set()
    taken: set[str] = set()
    for other in stage.other_works():
        for key in (wanted - taken) & other.committed_shards():
            stage.copy_shard(key, other)
            taken.add(key)
    for lane in lanes:
        lane.pending = [shard for shard in lane.pending if shard.key not in taken]
    return taken


def _answer(
    context: StageContext, planned: list[_Lane], pending: list[_Lane], committed: set[str]
) -> None:
    """Send the pending shards to workers, and take note of what becomes of them."""
    far = [lane for lane in pending if lane.lane.engine.desk is not None]
    desk = StageDesk({lane.name: lane.lane.engine for lane in pending})
    spare = committed - {shard.key for lane in planned for shard in lane.plan}
    reusable = _reusable_rows(context.stage, spare)
    counts = {
        lane.name: LaneCount(
            lane.lane.engine,
            total=sum(shard.rows for shard in lane.plan),
            before=sum(shard.rows for shard in lane.plan if shard.key in committed),
        )
        for lane in planned
    }
    streams = [
        partial(_ask_here, context, lane, desk, reusable) for lane in pending if lane not in far
    ]
    if far:
        streams.append(partial(_ask_everywhere, context, far, reusable))
    by_name = {lane.name: lane for lane in pending}
    with StageWatch(context, desk, counts) as watch:
        for report in _together(streams):
            lane = by_name[report.lane]
            if report.error is not None:
                lane.error = lane.error or report.error
                desk.stop(lane.name)
            else:
                watch.committed(report)
    if watch.verdict is not None:
        raise watch.verdict


Report = Callable[[ShardReport], None]


def _together(streams: Sequence[Callable[[Report], None]]) -> Iterator[ShardReport]:
    """The reports of several streams, each in a thread of its own, as they come.

    Raises:
        Exception: What a stream ended with, after all others have ended.
    """
    found: SimpleQueue[ShardReport | None] = SimpleQueue()
    errors: list[BaseException] = []

    def go(stream: Callable[[Report], None]) -> None:
        try:
            stream(found.put)
        except BaseException as error:  # raised again below, in the thread that waits
            errors.append(error)
        finally:
            found.put(None)

    for stream in streams:
        Thread(target=go, args=(stream,), daemon=True).start()
    going = len(streams)
    while going:
        report = found.get()
        if report is None:
            going -= 1
        else:
            yield report
    if errors:
        raise errors[0]


def _ask_here(
    context: StageContext,
    lane: _Lane,
    desk: StageDesk,
    reusable: dict[str, str],
    report: Report,
) -> None:
    """Answer a lane's shards from the driver."""
    work = ShardWorker(lane.work, context.stage, desk.note_here, reusable)
    at_once = lane.shards_at_once(context.recipe.recipe.shard_rows)

    async def go() -> None:
        try:
            await answer_here(work, [shard.key for shard in lane.pending], at_once, report)
        finally:
            await lane.lane.engine.disconnect()

    asyncio.run(go())


def _ask_everywhere(
    context: StageContext,
    lanes: list[_Lane],
    reusable: dict[str, str],
    report: Report,
) -> None:
    """Answer lanes' shards by workers all over the cluster, in one pass of Ray Data."""
    import ray
    import ray.data

    # Ray Data would start a thread for every open shard that looks at the worker's memory.
    ray.data.DataContext.get_current().memory_usage_poll_interval_s = None
    known = ray.put(reusable)
    datasets = [_dataset(context, lane, known) for lane in lanes]
    try:
        for row in reduce(lambda one, other: one.union(other), datasets).iter_rows():
            report(from_row(row))
    except ray.exceptions.RayError as error:
        raise WorkError(
            f"stage {context.stage.stage}",
            f"Ray stopped the work: {type(error).__name__}.",
            "What was committed is safe; run the same command again. The run's logs/ say more.",
        ) from error


def _dataset(context: StageContext, lane: _Lane, reusable: ray.ObjectRef) -> ray.data.Dataset:
    """The pending shards of a lane, on their way through its workers.

    A shard travels by its key: the worker reads the rows from the plan, and writes its answers
    itself, so a repeated call finds the same rows and nothing depends on Ray Data's own writes.
    """
    import ray.data

    at_once = lane.shards_at_once(context.recipe.recipe.shard_rows)
    keys = [{"shard": shard.key} for shard in lane.pending]
    return ray.data.from_items(keys, override_num_blocks=len(keys)).map_batches(
        RayShardWorker,
        batch_size=1,
        fn_constructor_args=(lane.work, context.stage, lane.lane.engine.desk, reusable),
        num_cpus=WORKER_CPUS,
        **placed("cpu"),
        compute=ray.data.ActorPoolStrategy(
            size=lane.workers,
            max_tasks_in_flight_per_actor=2 * at_once,
            max_concurrent_calls_per_actor=at_once,
        ),
    )


def _reusable_rows(stage: StageFolder, spare: set[str]) -> dict[str, str]:
    """By row id, the shard of an earlier plan that kept or rejected it."""
    found: dict[str, str] = {}
    for key in spare.intersection(name.removesuffix(".parquet") for name in stage.rejected.names()):
        rejected = stage.rejected.read_table(f"{key}.parquet", ["id", "reason"])
        lasting = rejected.filter(pc.invert(pc.is_in(rejected["reason"], pa.array(PASSING))))
        found.update(dict.fromkeys(lasting["id"].to_pylist(), key))
    for key in spare:
        kept = stage.rows.read_table(f"{key}.parquet", ["id"])["id"].to_pylist()
        found.update(dict.fromkeys(kept, key))
    return found


def _rejected_reasons(stage: StageFolder, keys: list[str]) -> dict[str, int]:
    present = set(stage.rejected.names())
    counts: Counter[str] = Counter()
    for key in keys:
        if f"{key}.parquet" in present:
            counts.update(count_by_reason(stage.rejected.read_table(f"{key}.parquet", ["reason"])))
    return dict(counts.most_common())
