"""Exactly-once work on rows: Ray Data takes shards to workers, and every shard commits by itself.

A shard is a fixed slice of the planned rows; its key is a hash of their ids. A worker answers all
rows of a shard at once, and commits the answers as one file that appears whole or not at all. After
any kill, the same call plans the same shards and runs those whose files are not there. Ray Data's
own checkpoints are not used: they need the rows to come from a file reader, load every id on
restore, and count rows that failed as done.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data

from core.errors import StillhouseError, UseError, WorkError
from core.identity import content_id
from core.rows import REJECTED
from core.run import StageFolder, count_by_reason
from core.stage import StageContext, StageResult
from core.teacher import Engine
from pipelines.engine_meter import EngineMeter

SHARDS_IN_FLIGHT = 3
"""Shards that a worker has open at once, so that the engine has work while one ends and commits."""

WORKER_CPUS = 0.1
"""A worker waits for engines nearly all the time."""

Row = dict[str, Any]


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
class Shard:
    """Rows that are committed together; every row has an `id`."""

    key: str
    rows: list[Row]


def split(rows: Iterable[Row], shard_rows: int) -> Iterator[Shard]:
    """Cut planned rows into shards. Equal rows in equal order give equal shards."""
    numbered = iter(rows)
    while slice_ := list(itertools.islice(numbered, shard_rows)):
        yield Shard(content_id([row["id"] for row in slice_]), slice_)


def unique(rows: Iterable[Row]) -> Iterator[Row]:
    """Drop rows whose id came before: equal inputs are one piece of work."""
    seen: set[str] = set()
    for row in rows:
        if row["id"] not in seen:
            seen.add(row["id"])
            yield row


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


class ShardWorker:
    """The Ray Data actor that answers shards."""

    def __init__(self, work: RowWork, stage: StageFolder, reusable: dict[str, str]) -> None:
        self._work = work
        self._stage = stage
        # Rows by id in shards that an earlier plan cut otherwise: found again, not paid again.
        self._reusable = reusable
        self._old_shards: dict[str, dict[str, Row]] = {}

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Answer and commit the one shard in a batch.

        An error that stops the stage goes back as a row: Ray Data would wrap it and lose its parts.
        """
        shard = json.loads(batch["shard"][0])
        try:
            rows, rejected = await self._answer(shard["key"], shard["rows"])
        except StillhouseError as error:
            yield _report(shard["key"], error=error)
        except Exception as error:  # a fault in the work; the next rows would meet it too
            cause = f"the work stopped: {type(error).__name__}: {error}."
            mend = "What was committed is safe. The run's logs/ say more."
            yield _report(shard["key"], error=WorkError(f"stage {self._stage.stage}", cause, mend))
        else:
            yield _report(shard["key"], rows, rejected)

    async def _answer(self, key: str, planned: list[Row]) -> tuple[int, int]:
        """Answer a shard's rows and commit it; returns how many were kept and rejected."""
        old = [self._find(row["id"]) for row in planned]
        answers = await asyncio.gather(
            *(
                self._work(row) if found is None else _itself(found)
                for row, found in zip(planned, old, strict=True)
            )
        )
        rows = [answer for answer in answers if not isinstance(answer, Rejection)]
        rejections = [
            (row["id"], answer)
            for row, answer in zip(planned, answers, strict=True)
            if isinstance(answer, Rejection)
        ]
        rejected = rejected_table(self._stage.stage, rejections)
        table = pa.Table.from_pylist(rows, schema=self._work.schema)
        await asyncio.to_thread(self._stage.commit_shard, key, table, rejected)
        return len(rows), len(rejections)

    def _find(self, row_id: str) -> Row | None:
        key = self._reusable.get(row_id)
        if key is None:
            return None
        if key not in self._old_shards:
            table = self._stage.rows.read_table(f"{key}.parquet")
            self._old_shards[key] = {row["id"]: row for row in table.to_pylist()}
        return self._old_shards[key][row_id]


def _report(
    key: str, rows: int = 0, rejected: int = 0, error: StillhouseError | None = None
) -> dict[str, Any]:
    """What the driver hears of a shard; the columns are the same whatever happened."""
    parts = error and [type(error).__name__, error.place, error.cause, error.mend]
    return {
        "key": [key],
        "rows": [rows],
        "rejected": [rejected],
        "error": [json.dumps(parts) if parts else ""],
    }


def _reported_error(text: str) -> StillhouseError:
    name, *parts = json.loads(text)
    return (UseError if name == UseError.__name__ else WorkError)(*parts)


async def _itself(value: Row) -> Row:
    return value


def run_shards(
    context: StageContext, plan: Iterable[Row], work: RowWork, engine: Engine
) -> StageResult:
    """Do the planned work that is not committed yet, and return what is committed.

    Args:
        context: Of the stage.
        plan: All rows of the stage, in a fixed order, each with its `id`; a repeated id is one row.
        work: What to do with a row.
        engine: What `work` asks, to keep its ledger.

    Raises:
        StillhouseError: From a row's work or from a commit; committed shards stay.
    """
    shards = list(split(unique(plan), context.recipe.recipe.shard_rows))
    committed = context.stage.committed_shards()
    pending = [shard for shard in shards if shard.key not in committed]
    total = sum(len(shard.rows) for shard in shards)
    done = total - sum(len(shard.rows) for shard in pending)
    if pending:
        meter = EngineMeter(context, engine)
        reusable = _reusable_rows(context.stage, committed - {shard.key for shard in shards})
        dataset = ray.data.from_items(
            [{"shard": json.dumps(asdict(shard))} for shard in pending],
            override_num_blocks=len(pending),
        ).map_batches(
            ShardWorker,
            batch_size=1,
            fn_constructor_args=(work, context.stage, reusable),
            num_cpus=WORKER_CPUS,
            compute=ray.data.ActorPoolStrategy(
                size=engine.replicas,
                max_tasks_in_flight_per_actor=2 * SHARDS_IN_FLIGHT,
                max_concurrent_calls_per_actor=SHARDS_IN_FLIGHT,
            ),
        )
        with meter:
            meter.advance(done, total)
            try:
                for committed_shard in dataset.iter_rows():
                    if committed_shard["error"]:
                        raise _reported_error(committed_shard["error"])
                    done += committed_shard["rows"] + committed_shard["rejected"]
                    meter.advance(done, total, committed_shard["rows"])
            except ray.exceptions.RayError as error:
                raise WorkError(
                    f"stage {context.stage.stage}",
                    f"Ray stopped the work: {type(error).__name__}.",
                    "What was committed is safe; run the same command again. The run's logs/ say "
                    "more.",
                ) from error
    keys = [shard.key for shard in shards]
    rows = sum(context.stage.rows.read_table(f"{key}.parquet", ["id"]).num_rows for key in keys)
    return StageResult(keys, rows, _rejected_reasons(context.stage, keys))


def _reusable_rows(stage: StageFolder, spare: set[str]) -> dict[str, str]:
    return {
        row_id: key
        for key in spare
        for row_id in stage.rows.read_table(f"{key}.parquet", ["id"])["id"].to_pylist()
    }


def _rejected_reasons(stage: StageFolder, keys: list[str]) -> dict[str, int]:
    present = set(stage.rejected.names())
    tables = [
        stage.rejected.read_table(f"{key}.parquet", ["reason"])
        for key in keys
        if f"{key}.parquet" in present
    ]
    return count_by_reason(pa.concat_tables(tables)) if tables else {}
