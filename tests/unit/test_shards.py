"""Shards are cut the same way every time, and no row stands in two."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards import split, unique

rows = st.lists(st.integers(0, 30)).map(lambda ids: [{"id": str(number)} for number in ids])


@given(rows, st.integers(1, 9))
def test_every_row_stands_in_one_shard(plan, size):
    shards = list(split(unique(plan), size))
    ids = [row["id"] for shard in shards for row in shard.rows]
    assert len(ids) == len(set(ids))
    assert set(ids) == {row["id"] for row in plan}
    assert all(len(shard.rows) == size for shard in shards[:-1])
    assert len({shard.key for shard in shards}) == len(shards)
    assert shards == list(split(unique(plan), size))


@given(rows, rows, st.integers(1, 9))
def test_more_rows_at_the_end_keep_the_full_shards(plan, more, size):
    before = list(split(unique(plan), size))
    after = {shard.key for shard in split(unique(plan + more), size)}
    assert all(shard.key in after for shard in before if len(shard.rows) == size)
