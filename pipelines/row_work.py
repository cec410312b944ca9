"""What is done with one planned row, and what becomes of a row that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from core.rows import REJECTED

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


def rejected_table(
    stage: str, rejections: Sequence[tuple[str, Rejection]], teacher: str | None = None
) -> pa.Table:
    """Rejected rows as a table; anything that is not JSON is kept as its Python text.

    Args:
        stage: Its name.
        rejections: By the row's id.
        teacher: Who was asked about them, if anybody was.
    """
    return pa.Table.from_pylist(
        [
            {
                "id": row_id,
                "stage": stage,
                "teacher": teacher,
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
