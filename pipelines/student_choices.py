"""Answers of students that choose: a forward pass over questions and their choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from core.placement import placed

BATCH_ROWS = 64
"""Rows of one forward pass; of a head for choices, questions and not their choices."""


def choose(folder: Path, tasks: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """A student's probability of each choice, by Ray Data.

    Args:
        folder: The student's, a Hugging Face folder.
        tasks: Each with `id`, `question` and `choices`; no two ids are the same.

    Returns:
        By id: [choices], summing to 1.
    """
    rows = [{name: task[name] for name in ("id", "question", "choices")} for task in tasks]
    dataset = ray.data.from_items(rows).map_batches(
        EncoderPredictor,
        fn_constructor_args=(folder,),
        batch_size=BATCH_ROWS,
        batch_format="pyarrow",
        concurrency=1,
        num_cpus=1,
        **placed("cpu"),
    )
    return {row["id"]: row["probabilities"] for row in dataset.iter_rows()}


class EncoderPredictor:
    """A Ray Data actor that runs an encoder over questions."""

    def __init__(self, folder: Path) -> None:
        from transformers import (
            AutoConfig,
            AutoModelForMultipleChoice,
            AutoModelForSequenceClassification,
            AutoTokenizer,
        )

        architecture = AutoConfig.from_pretrained(folder).architectures[0]
        self._reads_choices = architecture.endswith("ForMultipleChoice")
        model = (
            AutoModelForMultipleChoice
            if self._reads_choices
            else AutoModelForSequenceClassification
        )
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = model.from_pretrained(folder).eval()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add `probabilities` [choices] to a batch of questions with their choices."""
        questions, choices = batch["question"].to_pylist(), batch["choices"].to_pylist()
        logits = (
            self._of_choices(questions, choices) if self._reads_choices else self._of(questions)
        )
        probabilities = [one.softmax(-1).tolist() for one in logits]
        return pa.table(
            {"id": batch["id"], "probabilities": pa.array(probabilities, pa.list_(pa.float64()))}
        )

    def _of(self, questions: list[str]) -> list[Any]:
        """[K] logits of each question."""
        return list(self._logits(self._encode(questions)))

    def _of_choices(self, questions: list[str], choices: list[list[str]]) -> list[Any]:
        """[its choices] logits of each question."""
        repeated = [q for q, own in zip(questions, choices, strict=True) for _ in own]
        inputs = self._encode(repeated, [choice for own in choices for choice in own])
        # Every choice is a question of one choice to the model, so that rows may have any number.
        scores = self._logits({name: ids[:, None] for name, ids in inputs.items()})[:, 0]
        return list(scores.split([len(own) for own in choices]))

    def _encode(self, *texts: list[str]) -> Any:
        return self._tokenizer(*texts, padding=True, truncation=True, return_tensors="pt")

    def _logits(self, inputs: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self._model(**inputs).logits
