"""Plans are cut the same way every time; no row stands in two shards, none is answered twice."""

import asyncio

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.identity import content_id
from core.run import Folder, StageFolder
from pipelines.plan import read_plan, read_shard, shard_key, split, write_plan
from pipelines.row_work import Rejection
from pipelines.shard_worker import LaneWork, ShardReport, ShardWorker

rows = st.lists(st.integers(0, 30)).map(
    lambda numbers: [{"id": content_id(number), "number": number} for number in numbers]
)


def planned(folder, name):
    shards = read_plan(folder, name)
    return shards, [row for shard in shards for row in read_shard(folder, shard.key)]


@settings(deadline=None)
@given(rows, st.integers(1, 9))
def test_every_row_stands_in_one_shard(tmp_path_factory, plan, size):
    folder = Folder(str(tmp_path_factory.mktemp("plan")))
    repeated = write_plan(folder, "all", iter(plan), size)
    shards, found = planned(folder, "all")
    first = list({row["id"]: row for row in reversed(plan)}.values())[::-1]
    assert found == sorted(first, key=lambda row: [r["id"] for r in plan].index(row["id"]))
    assert repeated == len(plan) - len(found)
    assert all(shard.rows <= size for shard in shards)
    assert len({shard.key for shard in shards}) == len(shards)
    assert [shard.rows for shard in shards] == [
        len(read_shard(folder, shard.key)) for shard in shards
    ]


@settings(deadline=None)
@given(rows, rows, st.integers(1, 9))
def test_more_rows_at_the_end_keep_the_full_shards(tmp_path_factory, plan, more, size):
    folder = Folder(str(tmp_path_factory.mktemp("plan")))
    write_plan(folder, "few", plan, size)
    write_plan(folder, "many", plan + more, size)
    after = {shard.key for shard in read_plan(folder, "many")}
    full = [shard_key(slice_) for slice_ in split(plan, size) if len(slice_) == size]
    assert after >= {shard.key for shard in read_plan(folder, "few") if shard.key in full}


def test_a_plan_that_a_kill_cut_short_is_none(tmp_path):
    folder = Folder(str(tmp_path))

    def killed():
        yield from ({"id": content_id(number)} for number in range(7))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_plan(folder, "cut", killed(), 2)
    assert folder.names(), "shards of it are there already"
    assert read_plan(folder, "cut") is None


def test_any_text_survives_the_plan(tmp_path):
    folder = Folder(str(tmp_path))
    texts = ["", "\x00\x1f", "\ud800", "مرحبا", "x" * 10**6, '{"a": [1]}']
    write_plan(folder, "odd", ({"id": content_id(text), "text": text} for text in texts), 100)
    assert [row["text"] for row in planned(folder, "odd")[1]] == texts


@pytest.mark.parametrize("odd", ["is rejected", "is answered"])
def test_a_shard_that_comes_a_second_time_is_counted_and_not_answered_again(tmp_path, odd):
    class Work:
        schema = pa.schema([("id", pa.string())])
        asked = 0

        async def __call__(self, row):
            self.asked += 1
            rejected = row["number"] % 2 and odd == "is rejected"
            return Rejection("odd", "", row) if rejected else {"id": row["id"]}

    async def note(lane, answered):
        return True

    stage, work = StageFolder("ask", Folder(str(tmp_path))), Work()
    rows = [{"id": content_id(number), "number": number} for number in range(5)]
    write_plan(stage.plan, "all", rows, 5)
    (shard,) = read_plan(stage.plan, "all")
    expected = (3, 2) if odd == "is rejected" else (5, 0)
    for _ in range(2):  # by two workers, as after the death of a node
        worker = ShardWorker(LaneWork("one", work, 5), stage, note, {})
        report = asyncio.run(worker.answer(shard.key))
        assert report == ShardReport("one", shard.key, *expected)
    assert work.asked == 5
