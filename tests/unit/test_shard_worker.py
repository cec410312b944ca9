"""A worker keeps its engines full whatever shards wait for, and stops without half-asked shards."""

from __future__ import annotations

import asyncio
from itertools import groupby

import pyarrow as pa

from core.identity import content_id
from core.run import Folder, Run
from pipelines.plan import read_plan, write_plan
from pipelines.shard_worker import LaneWork, ShardWorker, answer_here

SHARD_ROWS = 5
ROWS_AT_ONCE = 8


class Answer:
    """Answers a row, but the first of each shard only when it is allowed to."""

    schema = pa.schema([("id", pa.string()), ("number", pa.int64())])

    def __init__(self) -> None:
        self.long_ones = asyncio.Event()
        self.begun = []
        self.open = 0
        self.most = 0

    async def __call__(self, row):
        self.begun.append(row["number"])
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0.001)
        if row["number"] % SHARD_ROWS == 0:
            await self.long_ones.wait()
        self.open -= 1
        return row


def worker_of(tmp_path, rows, note):
    """A worker on a planned stage, the work that it does, and the keys of its shards."""
    stage = Run(Folder(str(tmp_path))).stage("ask", "w" * 12)
    plan = ({"id": content_id(number), "number": number} for number in range(rows))
    write_plan(stage.plan, "all", plan, SHARD_ROWS)
    work = Answer()
    keys = [shard.key for shard in read_plan(stage.plan, "all")]
    return ShardWorker(LaneWork("one", work, ROWS_AT_ONCE), stage, note, {}), work, keys, stage


async def going_on(_lane, _answered):
    return True


def test_long_answers_of_several_shards_leave_room_for_the_rows_of_others(tmp_path):
    worker, work, keys, stage = worker_of(tmp_path, 30, going_on)
    reports = []

    async def go():
        going = asyncio.ensure_future(answer_here(worker, keys, len(keys), reports.append))
        while len(work.begun) < 30:  # the six first rows wait, and two places are left
            await asyncio.sleep(0.001)
        shards = [number // SHARD_ROWS for number in work.begun]
        assert [shard for shard, _ in groupby(shards)] == list(dict.fromkeys(shards)), "mixed"
        assert reports == []
        work.long_ones.set()
        await going

    asyncio.run(asyncio.wait_for(go(), 30))
    assert work.most == ROWS_AT_ONCE
    assert sum(report.rows for report in reports) == 30
    assert stage.committed_shards() == set(keys)


def test_a_word_to_stop_ends_the_shards_that_were_begun_and_begins_no_other(tmp_path):
    stopped = False

    async def note(_lane, _answered):
        return not stopped

    worker, work, keys, stage = worker_of(tmp_path, 60, note)
    reports = []

    async def go():
        nonlocal stopped
        going = asyncio.ensure_future(answer_here(worker, keys, len(keys), reports.append))
        while work.open < ROWS_AT_ONCE or len(work.begun) % SHARD_ROWS == 0:
            await asyncio.sleep(0)
        stopped = True
        work.long_ones.set()
        await going

    asyncio.run(asyncio.wait_for(go(), 30))
    begun = -(-len(work.begun) // SHARD_ROWS)
    assert 0 < begun < len(keys)
    assert len(work.begun) == begun * SHARD_ROWS
    assert len(stage.committed_shards()) == len(reports) == begun
