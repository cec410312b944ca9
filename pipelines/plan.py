"""The plan of a stage on disk: which rows there are to answer, cut into shards.

    <stage>/<work>/plan/<key>.parquet                  the planned rows of a shard
    <stage>/<work>/plan/<teacher>.<fingerprint>.json   the shards of a whole plan, in their order

A plan is written once, as a stream, and read again after a kill. It never stands in memory: ten
million rows take the driver no more of it than ten thousand. A shard's key is a hash of its rows,
so a longer plan keeps the keys of the shards that it shares with a shorter one.
"""

from __future__ import annotations

import heapq
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.identity import content_id
from core.run import Folder

Row = dict[str, Any]

BUCKETS = 64
"""Files over which ids are spread to find the equal ones: one at a time is held in memory."""

_PLACE = np.dtype([("id", "S16"), ("shard", "<u4"), ("row", "<u4")])


@dataclass(frozen=True)
class PlannedShard:
    """Rows that are committed together."""

    key: str
    rows: int


def split(rows: Iterable[Row], shard_rows: int) -> Iterator[list[Row]]:
    """Cut rows into slices. Equal rows in equal order give equal slices."""
    numbered = iter(rows)
    while slice_ := list(itertools.islice(numbered, shard_rows)):
        yield slice_


def sample_rows(rows: Iterable[Row], number: int) -> list[Row]:
    """Rows with the smallest ids, in their own order; a repeated id counts once.

    Ids are hashes, so these are a random sample whatever the order of the rows is, and the same
    one every time; a larger sample has all rows of a smaller one. In memory stand twice as many.
    """
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row["id"], row)
        if len(found) > 2 * number:
            found = _smallest(found, number)
    return list(_smallest(found, number).values())


def _smallest(rows: dict[str, Row], number: int) -> dict[str, Row]:
    chosen = set(heapq.nsmallest(number, rows))
    return {row_id: row for row_id, row in rows.items() if row_id in chosen}


def shard_key(rows: list[Row], maker: str = "") -> str:
    """The name of a shard: a hash of its planned rows, and of who answers them.

    Not of their ids alone: what a row carries along, such as the item that a score is for, is no
    part of the id, and stands in the committed rows.
    """
    return content_id(maker, rows)


def write_plan(
    folder: Folder, name: str, rows: Iterable[Row], shard_rows: int, maker: str = ""
) -> int:
    """Write a plan, and return how many of its rows repeat an earlier id.

    Equal ids are one piece of work: the first stays, the others are left out.

    Args:
        folder: Of plans.
        name: Of this plan.
        rows: All rows of the stage, in a fixed order, each with its `id` (32 hexadecimal digits)
            and else JSON values.
        shard_rows: Rows of a shard.
        maker: Part of the shards' names; see `shards.Lane.maker`.
    """
    shards: list[PlannedShard] = []
    present = set(folder.names())
    with _Places() as places:
        for slice_ in split(rows, shard_rows):
            shards.append(_write_shard(folder, slice_, present, maker))
            places.add(len(shards) - 1, slice_)
        repeated = places.repeated()
    for number, numbers in repeated.items():
        left = [
            row
            for place, row in enumerate(read_shard(folder, shards[number].key))
            if place not in numbers
        ]
        shards[number] = _write_shard(folder, left, present, maker)
    index = {"shards": [asdict(shard) for shard in shards if shard.rows]}
    folder.write_json(f"{name}.json", index)
    return sum(map(len, repeated.values()))


def read_plan(folder: Folder, name: str) -> list[PlannedShard] | None:
    """The shards of a plan, or None where it is not written, or not to its end."""
    if not folder.has(f"{name}.json"):
        return None
    return [PlannedShard(**shard) for shard in folder.read_json(f"{name}.json")["shards"]]


def read_shard(folder: Folder, key: str) -> list[Row]:
    """The planned rows of a shard."""
    return [json.loads(row) for row in folder.read_table(f"{key}.parquet")["row"].to_pylist()]


def _write_shard(folder: Folder, rows: list[Row], present: set[str], maker: str) -> PlannedShard:
    key = shard_key(rows, maker)
    file = f"{key}.parquet"
    if rows and file not in present:
        # As JSON, so that a shard's own values never decide the types of its columns.
        table = pa.table({"row": [json.dumps(row) for row in rows]})
        folder.write_table(file, table)
        present.add(file)
    return PlannedShard(key, len(rows))


class _Places:
    """Finds equal ids among any number of rows, exactly, with 24 bytes a row on disk.

    Ids are spread over files by their first bits, and the files are looked through one by one.
    """

    def __enter__(self) -> _Places:
        self._open = ExitStack()
        folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        self._paths = [folder / str(number) for number in range(BUCKETS)]
        self._files = [self._open.enter_context(path.open("wb")) for path in self._paths]
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, shard: int, rows: list[Row]) -> None:
        """Note where the rows of a shard stand."""
        places = np.empty(len(rows), _PLACE)
        ids = b"".join(bytes.fromhex(row["id"]) for row in rows)
        places["id"] = np.frombuffer(ids, "S16")
        places["shard"], places["row"] = shard, np.arange(len(rows))
        buckets = np.frombuffer(ids, np.uint8)[::16] % BUCKETS
        order = np.argsort(buckets, kind="stable")
        ends = np.searchsorted(buckets[order], np.arange(BUCKETS + 1))
        for number, file in enumerate(self._files):
            file.write(places[order[ends[number] : ends[number + 1]]].tobytes())

    def repeated(self) -> dict[int, set[int]]:
        """By shard: the rows in it whose id stands in an earlier place."""
        found: dict[int, set[int]] = {}
        for path, file in zip(self._paths, self._files, strict=True):
            file.flush()
            places = np.fromfile(path, _PLACE)
            places = places[np.argsort(places["id"], kind="stable")]
            again = places[1:][places["id"][1:] == places["id"][:-1]]
            for place in again:
                found.setdefault(int(place["shard"]), set()).add(int(place["row"]))
        return found
