"""Which evaluation rows a model has answered rightly, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Right = dict[str, bool]
"""By the id of the row: whether the answer was right."""


def right_answers(rows: Iterable[dict[str, Any]]) -> dict[str, Right]:
    """By model, of rows of `core.rows.PREDICTION` or `core.rows.WRITTEN`."""
    found: dict[str, Right] = {}
    for row in rows:
        # A model that chooses is told by numbers of choices, one that writes by its texts.
        right = row["right"] if "right" in row else row["predicted"] == row["answer"]
        found.setdefault(row["model"], {})[row["id"]] = right
    return found
