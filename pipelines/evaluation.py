"""Answers to the evaluation rows: a teacher's from its scores, a student's by a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from scipy.special import softmax

from core.errors import WorkError
from core.models import model_folder
from core.rows import PREDICTION
from core.stage import StageContext, StageResult
from pipelines.row_work import rejected_table

BATCH_ROWS = 64
"""Rows of one forward pass."""


def predict_teacher(context: StageContext) -> StageResult:
    """Stage: a teacher's answers, raw and calibrated, from its scores.

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
    ]
    if not predictions:
        raise WorkError(
            "the evaluation rows",
            "the teacher could score none of them.",
            f"{context.inputs['scored'].rejected.location} has the reasons.",
        )
    return _commit(context, predictions)


def predict_student(context: StageContext) -> StageResult:
    """Stage: a student's answers, by Ray Data over the evaluation rows.

    Settings: `name`.
    Inputs: `student`, with its Hugging Face folder; `rows`, task rows.
    """
    tasks = context.inputs["rows"].read().to_pylist()
    folder = model_folder(context.inputs["student"].folder.child("student").location)
    dataset = ray.data.from_items([{"question": task["question"]} for task in tasks]).map_batches(
        EncoderPredictor,
        fn_constructor_args=(folder,),
        batch_size=BATCH_ROWS,
        concurrency=1,
        num_cpus=1,
    )
    probabilities = {row["question"]: row["probabilities"] for row in dataset.iter_rows()}
    predictions = [
        _prediction(task, context.settings["name"], probabilities[task["question"]])
        for task in tasks
    ]
    return _commit(context, predictions)


class EncoderPredictor:
    """A Ray Data actor that runs an encoder student over questions."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add probabilities [rows, choices] to a batch of questions."""
        import torch

        inputs = self._tokenizer(
            list(batch["question"]), padding=True, truncation=True, return_tensors="pt"
        )
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        return {**batch, "probabilities": torch.softmax(logits, dim=-1).numpy()}


def _prediction(task: dict[str, Any], model: str, probabilities: np.ndarray) -> dict[str, Any]:
    return {
        "id": task["id"],
        "model": model,
        "question": task["question"],
        "choices": task["choices"],
        "answer": task["answer"],
        "predicted": int(np.argmax(probabilities)),
        "probabilities": [float(p) for p in probabilities],
        "difficulty": task["difficulty"],
    }


def _commit(context: StageContext, predictions: list[dict[str, Any]]) -> StageResult:
    context.stage.commit_shard(
        "rows", pa.Table.from_pylist(predictions, schema=PREDICTION), rejected_table("", [])
    )
    return StageResult(
        ["rows"], len(predictions), facts={"accuracy": dict(accuracies(predictions))}
    )


def accuracies(predictions: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Share of right answers, by model."""
    for model in dict.fromkeys(row["model"] for row in predictions):
        right = [row["predicted"] == row["answer"] for row in predictions if row["model"] == model]
        yield model, sum(right) / len(right)
