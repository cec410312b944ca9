"""Answers to the evaluation rows: a teacher's from its scores, a student's by a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from core.errors import WorkError
from core.models import model_folder
from core.rows import PREDICTION
from core.run import count_by_reason
from core.stage import StageContext, StageResult
from pipelines.row_work import Rejection, Row, rejected_table
from pipelines.student_choices import choose


def predict_teacher(context: StageContext) -> StageResult:
    """Stage: a teacher's answers from its scores, raw and, where there are such, calibrated.

    Inputs: `scored`; `rows`, the task rows that were scored.
    """
    scored = {row["item"]: row for row in context.inputs["scored"].read().to_pylist()}
    tasks = context.inputs["rows"].read().to_pylist()
    predictions = [
        _prediction(task, f"{scored[task['id']]['teacher']} {setting}", softmax(scores))
        for task in tasks
        if task["id"] in scored
        for setting, scores in (
            ("raw", scored[task["id"]]["logprobs"]),
            ("calibrated", scored[task["id"]]["calibrated"]),
        )
        if scores is not None
    ]
    if not predictions:
        raise WorkError(
            "the evaluation rows",
            "the teacher could score none of them.",
            f"{context.inputs['scored'].rejected.location} has the reasons.",
        )
    return _commit(context, predictions)


def predict_student(context: StageContext) -> StageResult:
    """Stage: a student's answers to task rows.

    Settings: `name`.
    Inputs: `student`, with its Hugging Face folder; `rows`, task rows.
    """
    tasks = context.inputs["rows"].read().to_pylist()
    return choose_tasks(context, context.settings["name"], tasks)


def choose_tasks(
    context: StageContext,
    name: str,
    tasks: Sequence[Row],
    rejections: Sequence[tuple[str, Rejection]] = (),
) -> StageResult:
    """Commit a student's answers to task rows.

    Args:
        context: Of the stage, with the input `student`.
        name: What the student is called in its answers.
        tasks: Task rows; each may have choices of its own.
        rejections: Evaluation rows that are none, by their ids.
    """
    folder = model_folder(context.inputs["student"].folder.child("student").location)
    probabilities = choose(folder, tasks)
    predictions = [_prediction(task, name, np.array(probabilities[task["id"]])) for task in tasks]
    return _commit(context, predictions, rejections)


def _prediction(task: dict[str, Any], model: str, probabilities: np.ndarray) -> dict[str, Any]:
    choices, first = task["choices"], int(np.argmax(probabilities))
    return {
        "id": task["id"],
        "model": model,
        "question": task["question"],
        "choices": choices,
        "answer": task["answer"],
        # A row's own choices may have one twice: it is one answer, and the first is its number.
        "predicted": choices.index(choices[first]),
        "probabilities": [float(p) for p in probabilities],
        "difficulty": task["difficulty"],
        "subject": task.get("subject"),
    }


def _commit(
    context: StageContext,
    predictions: list[dict[str, Any]],
    rejections: Sequence[tuple[str, Rejection]] = (),
) -> StageResult:
    rejected = rejected_table(context.stage.stage, rejections)
    context.stage.commit_shard(
        "rows", pa.Table.from_pylist(predictions, schema=PREDICTION), rejected
    )
    return StageResult(
        ["rows"],
        len(predictions),
        count_by_reason(rejected),
        {"accuracy": dict(accuracies(predictions))},
    )


def accuracies(predictions: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Share of right answers, by model."""
    for model in dict.fromkeys(row["model"] for row in predictions):
        right = [row["predicted"] == row["answer"] for row in predictions if row["model"] == model]
        yield model, sum(right) / len(right)
