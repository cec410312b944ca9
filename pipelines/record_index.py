"""An index of recorded answers on disk: any number of them takes the same memory.

It is a private database of SQLite's without a name: SQLite unlinks its file as it opens it, so the
system frees the room however the process ends. It lies where SQLite puts temporary files, which
TMPDIR decides, and takes about as much room as the files without their compression.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import UseError, WorkError
from core.recipe_teachers import RecordColumns
from pipelines.row_files import file_rows, is_parquet, parquet_columns
from pipelines.row_work import Rejection, Row
from pipelines.tasks import storable

CACHE_KIB = 16_384
"""What SQLite holds of the database in memory."""

MOST_TOKENS = 2**31 - 1
"""Of a record: what a row of a run can hold."""


class _UnusableError(Exception):
    """A row of a file is no record; the text says why."""


class Record(NamedTuple):
    """A recorded answer; None where its file does not say."""

    text: str | None
    tokens_in: int | None
    tokens_out: int | None
    labels: str | None
    """JSON object of natural-log probabilities by label."""


class RecordIndex:
    """The records of a teacher's files, by prompt and number."""

    def __init__(self, teacher: str, files: Sequence[Path], columns: RecordColumns) -> None:
        """Read the files.

        Args:
            teacher: Its name in the recipe.
            files: In the order in which records of one prompt are numbered.
            columns: The files' names of the fields.

        Raises:
            UseError: A file has no usable record, or a column is nowhere in it.
            WorkError: The index could not be written.
        """
        self.unusable = 0
        """Records that could not be used."""
        self.first_unusable = ""
        """Which one, and why."""
        self._teacher = teacher
        self._columns = columns
        # The driver asks from the thread of the teacher's lane, and closes from its own.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute(
                "CREATE TABLE record (prompt BLOB, text TEXT, tokens_in INT, tokens_out INT, "
                "labels TEXT)"
            )
            self._database.execute("BEGIN")
            for file in files:
                self._database.executemany(
                    "INSERT INTO record VALUES (?,?,?,?,?)", self._read(file)
                )
            self._database.execute("COMMIT")
            # Afterwards: sorting all prompts at once is quicker than keeping them sorted.
            self._database.execute("CREATE INDEX by_prompt ON record (prompt)")
        except sqlite3.OperationalError as error:
            raise WorkError(
                f"teacher '{teacher}'",
                f"the index of its records could not be written: {error}.",
                "Set TMPDIR to a folder with room for all that its files hold.",
            ) from error

    def find(self, prompt: str, number: int, system: str = "") -> Record | None:
        """The record of a prompt with a number from 0, in the order of the files.

        Args:
            prompt: What is asked.
            number: Which of its answers is wanted.
            system: What stands before it; of no effect where no column has it.
        """
        found = self._database.execute(
            "SELECT text, tokens_in, tokens_out, labels FROM record WHERE prompt = ? "
            "ORDER BY rowid LIMIT 1 OFFSET ?",
            (self._key(prompt, system), number),
        ).fetchone()
        return None if found is None else Record._make(found)

    def count(self, prompt: str, system: str = "") -> int:
        """How many records a prompt has."""
        found = self._database.execute(
            "SELECT count(*) FROM record WHERE prompt = ?", (self._key(prompt, system),)
        )
        return int(found.fetchone()[0])

    def close(self) -> None:
        """Give back the disk that it takes."""
        self._database.close()

    def _key(self, prompt: str, system: str | None) -> bytes:
        key = _digest(prompt)
        return key if self._columns.system is None else key + _digest(system or "")

    def _read(self, file: Path) -> Iterator[tuple[Any, ...]]:
        """The rows of the database that a file makes; what is no record is left out and counted."""
        wanted = [name for name in self._columns.model_dump().values() if name is not None]
        unit = "line"
        if is_parquet(file):
            unit, there = "row", parquet_columns(file)
            self._refuse_missing(file, [name for name in wanted if name not in there])
        unseen, usable, first = set(wanted), 0, ""
        for number, row in file_rows(file, wanted):
            try:
                record = self._record(row, f"{unit} {number}")
            except _UnusableError as error:
                first = first or str(error)
                self.unusable += 1
                self.first_unusable = self.first_unusable or f"{file.name}, {error}"
                continue
            if unseen:
                unseen.difference_update(row)
            usable += 1
            yield record
        if not usable:
            cause = f"there is no usable record in it. {first}".strip()
            raise UseError(str(file), cause, self._mend())
        self._refuse_missing(file, sorted(unseen))

    def _refuse_missing(self, file: Path, missing: list[str]) -> None:
        if missing:
            cause = f"no record in it has the column '{missing[0]}'."
            raise UseError(str(file), cause, self._mend())

    def _mend(self) -> str:
        return f"teachers.{self._teacher}.columns says what the file calls each field of a record."

    def _record(self, row: Any, place: str) -> tuple[Any, ...]:
        """A row of the database.

        Raises:
            _UnusableError: There is none.
        """
        columns = self._columns
        if isinstance(row, Rejection):
            raise _UnusableError(row.detail)
        if not isinstance(row, dict):
            raise _UnusableError(f"{place} is not a JSON object")
        prompt, text = row.get(columns.prompt), None
        if _is_whole(prompt):
            prompt = str(prompt)
        if not isinstance(prompt, str) or not prompt.strip():
            raise _UnusableError(f"{place} has no text under '{columns.prompt}'")
        system = None if columns.system is None else row.get(columns.system)
        if not isinstance(system, str | None):
            raise _UnusableError(f"{place} has no text under '{columns.system}'")
        if columns.text is not None:
            text = row.get(columns.text)
            if columns.text not in row or not isinstance(text, str | None):
                raise _UnusableError(f"{place} has no text under '{columns.text}'")
        return (
            self._key(prompt, system),
            None if text is None else storable(text),
            _tokens(row, columns.tokens_in, place),
            _tokens(row, columns.tokens_out, place),
            _labels(row, columns.labels, place),
        )


def _digest(text: str) -> bytes:
    # surrogatepass: half a surrogate pair, which JSON can hold, is looked up like all else.
    return blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _tokens(row: Row, column: str | None, place: str) -> int | None:
    value = None if column is None else row.get(column)
    if value is not None and not (_is_whole(value) and 0 <= value <= MOST_TOKENS):
        raise _UnusableError(f"{place} has no number of tokens under '{column}'")
    return value


def _labels(row: Row, column: str | None, place: str) -> str | None:
    value = None if column is None else row.get(column)
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):
        value = dict(value)  # a map, as Arrow gives it
    if not isinstance(value, dict):
        raise _UnusableError(f"{place} has no object under '{column}'")
    # Arrow gives a struct every label in every row.
    scores = {label: score for label, score in value.items() if score is not None}
    for label, score in scores.items():
        if not isinstance(score, int | float) or not -math.inf < score <= 0:
            raise _UnusableError(f"{place} has no natural-log probability of {label!r}")
    return json.dumps(scores)
