"""From scored items to training rows: what the student gets to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from core.rows import TRAINING
from core.run import count_by_reason
from core.stage import StageContext, StageResult
from pipelines.row_work import Rejection, rejected_table


def select(context: StageContext) -> StageResult:
    """Stage: keep the scored items that a student should learn from, and add the examples.

    Settings: `scores` (`raw` or `calibrated`), `agree` (the teacher's first choice must be the
    choice that the item was written for), `min_confidence` (of its first choice), `hard_label`
    (`teacher`, its first choice, or `written`), `most` (items at most, of the smallest ids).
    Inputs: `examples`, task rows; `scored`; `items`, the generated rows that were scored.
    """
    settings = context.settings
    modes = {
        row["id"]: row["mode"] for row in context.inputs["items"].read(["id", "mode"]).to_pylist()
    }
    column = "calibrated" if settings["scores"] == "calibrated" else "logprobs"
    rows = example_rows(context)
    examples, rejections = len(rows), []
    for row in context.inputs["scored"].read().to_pylist():
        rejection = judge(
            row, column, agree=settings["agree"], min_confidence=settings["min_confidence"]
        )
        if rejection is not None:
            rejections.append((row["id"], rejection))
            continue
        rows.append(
            {
                "id": row["id"],
                "question": row["question"],
                "choices": row["choices"],
                "answer": (
                    int(np.argmax(row[column]))
                    if settings["hard_label"] == "teacher"
                    else row["intended"]
                ),
                "logits": row[column],
                "weight": 1.0,
                "source": modes[row["item"]],
            }
        )
    if settings["most"] is not None:
        kept = sorted(row["id"] for row in rows[examples:])[: settings["most"]]
        rows = rows[:examples] + [row for row in rows[examples:] if row["id"] in set(kept)]
    rejected = rejected_table(context.stage.stage, rejections)
    context.stage.commit_shard("rows", pa.Table.from_pylist(rows, schema=TRAINING), rejected)
    return StageResult(["rows"], len(rows), count_by_reason(rejected))


def judge(
    row: dict[str, Any], column: str, *, agree: bool, min_confidence: float
) -> Rejection | None:
    """Say why a scored row is not to be learnt from, or None if it is."""
    probabilities = softmax(row[column])
    first = int(np.argmax(probabilities))
    if agree and row["intended"] is not None and first != row["intended"]:
        written, chosen = row["choices"][row["intended"]], row["choices"][first]
        detail = f"written for {written}, but the teacher chooses {chosen}"
        return Rejection("disagreement", detail, row)
    if probabilities[first] < min_confidence:
        detail = f"the teacher is only {probabilities[first]:.2f} sure of {row['choices'][first]}"
        return Rejection("unsure", detail, row)
    return None


def select_examples(context: StageContext) -> StageResult:
    """Stage: the examples alone as training rows, for the student that has no teacher."""
    rows = example_rows(context)
    context.stage.commit_shard(
        "rows", pa.Table.from_pylist(rows, schema=TRAINING), rejected_table("", [])
    )
    return StageResult(["rows"], len(rows))


def example_rows(context: StageContext) -> list[dict[str, Any]]:
    """The examples as training rows with hard labels."""
    return [
        {
            "id": row["id"],
            "question": row["question"],
            "choices": row["choices"],
            "answer": row["answer"],
            "logits": None,
            "weight": 1.0,
            "source": "example",
        }
        for row in context.inputs["examples"].read().to_pylist()
    ]
