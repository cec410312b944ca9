"""The training rows, checked before any worker starts: a bad row must not cost a device's time."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from core.errors import UseError
from core.run import StageFolder

COLUMNS = ["id", "question", "choices", "answer", "logits", "weight"]


def read_rows(stage: StageFolder, choices: list[str]) -> pa.Table:
    """Read the rows of a finished stage, and refuse those that no student could learn from.

    Args:
        stage: Holds rows of `core.rows.TRAINING`.
        choices: The recipe's; every row must have the same.
    """
    table = stage.read(COLUMNS)
    if table.num_rows == 0:
        raise UseError(
            f"stage '{stage.stage}'",
            "it has no rows to train on.",
            "See its rejected rows for the reasons, or ask for more rows.",
        )
    for row in table.to_pylist():
        fault = _fault(row, choices)
        if fault is not None:
            raise UseError(f"training row {row['id']}", *fault)
    return table


def _fault(row: dict[str, Any], choices: list[str]) -> tuple[str, str] | None:
    """What is wrong with a row, and what mends it."""
    again = "Make the row again, or take it out."
    if row["choices"] != choices:
        return f"its choices are {row['choices']}, the recipe's are {choices}.", again
    if row["answer"] is not None and not 0 <= row["answer"] < len(choices):
        return f"its label {row['answer']} is outside the {len(choices)} choices.", again
    if row["answer"] is None and row["logits"] is None:
        return "it has neither a label nor a teacher's scores.", again
    if row["logits"] is not None and not _are_scores(row["logits"], len(choices)):
        return f"{row['logits']} are not the scores of {len(choices)} choices.", again
    if not 0 < row["weight"] < math.inf:
        return f"its weight {row['weight']} is not a positive number.", again
    return None


def _are_scores(logits: list[float], choices: int) -> bool:
    # A choice may be impossible (-inf), but not all of them, and none may be unknown.
    return (
        len(logits) == choices and math.isfinite(max(logits)) and not any(map(math.isnan, logits))
    )
