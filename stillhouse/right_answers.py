"""Which evaluation rows a model has answered rightly, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Right = dict[str, bool]
"""By the id of the row: whether the answer was right."""


def right_answers(rows: Iterable[dict[str, Any]], *, by_choice: bool = False) -> dict[str, Right]:
    """By model, of rows of `core.rows.PREDICTION` or `core.rows.WRITTEN`.

    Args:
        rows: The answers.
        by_choice: Of a model that writes, whether the choice that it would most likely write is
            right, and not what it wrote; rows whose choices are not scored are left out.
    """
    found: dict[str, Right] = {}
    for row in rows:
        # A model that chooses is told by numbers of choices, one that writes by its texts.
        right = row["right"] if "right" in row else row["predicted"] == row["answer"]
        if by_choice and "right_choice" in row:
            right = row["right_choice"]
        if right is not None:
            found.setdefault(row["model"], {})[row["id"]] = right
    return found
