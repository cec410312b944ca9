"""Reading a file of rows that teachers are to be asked about, of any size, as a stream."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from core.errors import UseError
from core.identity import content_id
from core.rows import INPUT
from core.stage import Progress, StageContext, StageResult
from pipelines.datasets import dataset_rows
from pipelines.plan import sample_rows
from pipelines.row_files import file_rows
from pipelines.row_work import Rejection, Row, rejected_table
from pipelines.tasks import storable

SHARD_ROWS = 10_000
"""Rows of the file that are held in memory at once."""

LONGEST_FIELD = 1_000_000
"""Characters of a value at most; no teacher's prompt holds more."""


def read_inputs(context: StageContext) -> StageResult:
    """Stage: the rows of a JSONL or Parquet file, each a JSON object of any fields.

    A row that cannot be read is rejected with its number and the reason; the rest goes on.

    Settings: `file`; `format`, of a published data set, or None; `columns`, the file's name of a
    field by ours; fields that it does not name keep their names; `limit`, rows at most, or None.
    Of more rows those with the smallest ids are taken: ids are hashes, so they are drawn at random,
    and the same ones every time.

    Raises:
        UseError: Not one row can be used.
    """
    file = context.recipe.path(context.settings["file"])
    names = {theirs: ours for ours, theirs in context.settings["columns"].items()}
    name = context.settings["format"]
    found = file_rows(file) if name is None else dataset_rows(name, file)
    limit = context.settings["limit"]
    wanted = _drawn(found, names, limit) if limit else (_check(n, row, names) for n, row in found)
    keys: list[str] = []
    kept, reasons, first = 0, dict[str, int](), ""
    for number, batch in enumerate(iter(lambda: list(itertools.islice(wanted, SHARD_ROWS)), [])):
        rows = [row for row in batch if not isinstance(row, Rejection)]
        rejections = [(content_id(r.detail), r) for r in batch if isinstance(r, Rejection)]
        for _, rejection in rejections:
            reasons[rejection.reason] = reasons.get(rejection.reason, 0) + 1
            first = first or rejection.detail
        keys.append(f"{number:06}")
        table = pa.Table.from_pylist(rows, schema=INPUT)
        rejected = rejected_table(context.stage.stage, rejections)
        context.stage.commit_shard(keys[-1], table, rejected)
        kept += len(rows)
        context.show(Progress(kept, kept))
    if not kept:
        raise UseError(
            str(file),
            f"there is no usable row in it. {first}".strip(),
            'Each row must be an object of fields, such as {"question": "..."}.',
        )
    return StageResult(keys, kept, reasons)


def _drawn(
    found: Iterable[tuple[int, Any]], names: dict[str, str], limit: int
) -> Iterator[Row | Rejection]:
    """So many rows of a file, in its order, and all rejections before them."""
    rejections: list[Rejection] = []

    def sound() -> Iterator[Row]:
        for number, row in found:
            checked = _check(number, row, names)
            if isinstance(checked, Rejection):
                rejections.append(checked)
            else:
                yield checked

    rows = sample_rows(sound(), limit)
    yield from rejections
    yield from rows


def _check(number: int, row: Any, names: dict[str, str]) -> Row | Rejection:
    if isinstance(row, Rejection):
        return row
    if not isinstance(row, dict):
        return Rejection("not-an-object", f"row {number} is not a JSON object", row)
    try:
        fields = {storable(str(names.get(name, name))): value for name, value in row.items()}
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        detail = f"row {number} holds a value that JSON does not have, such as bytes or a date"
        return Rejection("not-json", detail, repr(row)[:LONGEST_FIELD])
    if len(text) > LONGEST_FIELD:
        detail = f"row {number} has {len(text)} characters, at most {LONGEST_FIELD} are taken"
        return Rejection("too-long", detail, text[:1000])
    text = storable(text)
    return {"id": content_id(text), "fields": text}
