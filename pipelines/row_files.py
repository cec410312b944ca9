"""Files of rows, JSONL or Parquet, of any size: read as a stream, each row with its number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import UseError
from pipelines.row_work import Rejection
from pipelines.tasks import json_lines

UNREADABLE = (pa.ArrowInvalid, OSError)
"""What pyarrow raises for a file that is no Parquet, or a damaged one."""

BATCH_ROWS = 10_000
"""Rows of a Parquet file that are held in memory at once."""


def file_rows(file: Path, columns: list[str] | None = None) -> Iterator[tuple[int, Any]]:
    """The rows of a file with their numbers from 1; those that cannot be read as rejections.

    Args:
        file: Parquet by its ending, otherwise JSONL.
        columns: Those of a Parquet file that are wanted; all if absent.

    Raises:
        UseError: It is called Parquet and cannot be read.
    """
    return _parquet_rows(file, columns) if is_parquet(file) else _json_rows(file)


def is_parquet(file: Path) -> bool:
    """Whether a file is read as Parquet."""
    return file.suffix == ".parquet"


def parquet_columns(file: Path) -> list[str]:
    """Names of the columns of a Parquet file.

    Raises:
        UseError: It cannot be read.
    """
    try:
        return list(pq.read_schema(file).names)
    except UNREADABLE as error:
        raise _no_parquet(file, error) from None


def _json_rows(file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in json_lines(file):
        try:
            yield number, json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield number, Rejection("not-utf8", f"line {number} is not UTF-8 text", repr(line))
        except (ValueError, RecursionError):
            detail = f"line {number} is not JSON that can be read"
            yield number, Rejection("not-json", detail, line.decode())


def _parquet_rows(file: Path, columns: list[str] | None) -> Iterator[tuple[int, Any]]:
    try:
        batches = pq.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS, columns=columns)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from enumerate(rows, start=1)
    except UNREADABLE as error:
        raise _no_parquet(file, error) from None


def _no_parquet(file: Path, error: Exception) -> UseError:
    return UseError(
        str(file), f"this is not a Parquet file that can be read: {error}.", "Check it."
    )
