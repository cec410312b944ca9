"""The training rows, checked before any worker starts: a bad row must not cost a device's time."""

from __future__ import annotations

import math
from typing import Any

from core.errors import UseError
from core.recipe_students import LogitObjective, SequenceObjective, Student
from core.run import StageFolder

CHOICE_COLUMNS = ["id", "choices", "answer", "logits", "weight"]
TEXT_COLUMNS = ["id", "messages", "answer", "rationales", "token_ids", "top_ids", "weight"]

AGAIN = "Make the row again, or take it out."

Fault = tuple[str, str]
"""What is wrong, and what mends it."""


def count_rows(stage: StageFolder, student: Student, choices: list[str]) -> int:
    """Count the rows of a finished stage, and refuse those that no student could learn from.

    Args:
        stage: Holds rows of `core.rows.TRAINING`, or `TEXT_TRAINING` for a student that writes.
        student: That is to learn from them.
        choices: The task's, where it has a fixed list; every row must have the same.
    """
    chooses = student.family == "encoder"
    rows = 0
    for table in stage.iter_shards(CHOICE_COLUMNS if chooses else TEXT_COLUMNS):
        rows += table.num_rows
        for row in table.to_pylist():
            fault = _choice_fault(row, student, choices) if chooses else _text_fault(row, student)
            if fault is not None:
                raise UseError(f"training row {row['id']}", *fault)
    if not rows:
        raise UseError(
            f"stage '{stage.stage}'",
            "it has no rows to train on.",
            "See its rejected rows for the reasons, or ask for more rows.",
        )
    return rows


def _choice_fault(row: dict[str, Any], student: Student, choices: list[str]) -> Fault | None:
    number = len(row["choices"])
    if student.head == "classes" and row["choices"] != choices:
        return f"its choices are {row['choices']}, the recipe's are {choices}.", AGAIN
    if number < 2:
        return f"it has {number} choices: there is nothing to choose.", AGAIN
    if row["answer"] is not None and not 0 <= row["answer"] < number:
        return f"its label {row['answer']} is outside the {number} choices.", AGAIN
    if row["answer"] is None and row["logits"] is None:
        return "it has neither a label nor a teacher's scores.", AGAIN
    if row["logits"] is not None and not _are_scores(row["logits"], number):
        return f"{row['logits']} are not the scores of {number} choices.", AGAIN
    return _weight_fault(row)


def _text_fault(row: dict[str, Any], student: Student) -> Fault | None:
    objective = student.objective
    if not row["messages"] or row["messages"][-1]["role"] != "user":
        return "its messages do not end with the user's.", AGAIN
    if isinstance(objective, LogitObjective) and not row["top_ids"]:
        return (
            "it has no likeliest tokens of its teacher, and the objective is 'logits'.",
            "Ask the teacher with sampling.top_logprobs, or choose the objective 'sequence'.",
        )
    if isinstance(objective, SequenceObjective) and not _has_task(row, objective):
        return (
            "it has no rationale of a teacher that counts, and its answer does not count either.",
            "Set objective.answer_weight, or take the row out.",
        )
    return _weight_fault(row)


def _has_task(row: dict[str, Any], objective: SequenceObjective) -> bool:
    wrote = {rationale["teacher"] for rationale in row["rationales"] or []}
    counts = {teacher for teacher, weight in objective.rationale_weights.items() if weight}
    return bool(objective.answer_weight or wrote & counts)


def _weight_fault(row: dict[str, Any]) -> Fault | None:
    if not 0 < row["weight"] < math.inf:
        return f"its weight {row['weight']} is not a positive number.", AGAIN
    return None


def _are_scores(logits: list[float], choices: int) -> bool:
    # A choice may be impossible (-inf), but not all of them, and none may be unknown.
    return (
        len(logits) == choices and math.isfinite(max(logits)) and not any(map(math.isnan, logits))
    )
