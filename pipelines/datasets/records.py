"""What the files of published data sets are made of: JSON, lines of JSON, tables and archives."""

from __future__ import annotations

import csv
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from core.errors import UseError
from pipelines.datasets import Fields
from pipelines.row_files import file_rows
from pipelines.row_work import Rejection

FAULTS = (
    *(AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError),
    csv.Error,
)
"""What making a row raises where a record has not the form of its set."""

LARGEST_MEMBER = 50_000_000
"""Bytes of a file in an archive at most: an archive can promise any size."""


def made(
    records: Iterator[tuple[int, Any]], make: Callable[[Any], Fields]
) -> Iterator[tuple[int, Fields | Rejection]]:
    """Make rows of records; one that has not the form of its set is a rejection.

    Args:
        records: With their numbers; rejections pass as they are.
        make: Raises one of `FAULTS` where a record has not the form.
    """
    for number, record in records:
        if isinstance(record, Rejection):
            yield number, record
            continue
        try:
            yield number, make(record)
        except FAULTS as error:
            yield number, _other_format(number, record, error)


def split(
    records: Iterator[tuple[int, Any]], parts: Callable[[Any], Iterable[Any]]
) -> Iterator[tuple[int, Any]]:
    """Take records apart that hold several rows each; all of one have its number.

    Args:
        records: With their numbers; rejections pass as they are.
        parts: Raises one of `FAULTS` where a record has not the form; all of it is rejected then.
    """
    for number, record in records:
        if isinstance(record, Rejection):
            yield number, record
            continue
        try:
            found = list(parts(record))
        except FAULTS as error:
            yield number, _other_format(number, record, error)
        else:
            yield from ((number, part) for part in found)


def _other_format(number: int, record: Any, error: Exception) -> Rejection:
    told = f"{error}" if isinstance(error, ValueError) else f"{error!r} is not in it"
    return Rejection(
        "other-format", f"row {number} has not the form of its data set: {told}", record
    )


def json_records(file: Path) -> Iterator[tuple[int, Any]]:
    """The records of a file that is one JSON list, or else of lines of JSON or of Parquet.

    Raises:
        UseError: It begins as a list and is none.
    """
    if file.suffix != ".parquet" and _begins_with(file, b"["):
        try:
            listed = json.loads(file.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise UseError(str(file), f"this is no list in JSON: {error}.", "Check it.") from None
        yield from enumerate(listed, start=1)
    else:
        yield from file_rows(file)


def table_records(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The records of a table with tabs and a head; quotes in it are part of the text."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream, delimiter="\t", quoting=3), start=1):
            yield number, {str(key): value for key, value in row.items()}


def archive_texts(file: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in a zip or tar archive, in the order of their names.

    Raises:
        UseError: It is no such archive.
    """
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for info in sorted(archive.infolist(), key=lambda info: info.filename):
                    if not info.is_dir() and info.file_size <= LARGEST_MEMBER:
                        yield info.filename, archive.read(info)
            return
        with tarfile.open(file) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                if member.isfile() and member.size <= LARGEST_MEMBER:
                    stream = archive.extractfile(member)
                    assert stream is not None, "it is a file"
                    yield member.name, stream.read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise UseError(
            str(file), f"this archive cannot be read: {error}.", "Fetch it again."
        ) from None


def text_of(record: Any, key: str) -> str:
    """The text under a key.

    Raises:
        ValueError: There is none.
    """
    value = record[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"there is no text under '{key}'")
    return value.strip()


def _begins_with(file: Path, mark: bytes) -> bool:
    with file.open("rb") as stream:
        begin = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    return begin.startswith(mark)
