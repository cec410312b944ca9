"""Encoder students choose: DeBERTa, BERT, ModernBERT and the like, with either of two heads.

A head for classes reads a question and has a logit for each choice of the task. A head for choices
reads each choice behind its question and gives it a logit, so rows may have choices of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from core.recipe_students import ChoiceObjective, Student
from training.batches import stream
from training.family import SAMPLE_ROWS, Family
from training.objectives import choice_losses, choice_targets
from training.units import Losses, Units


@dataclass(frozen=True)
class ChoiceUnits(Units):
    """Questions with their choices: a row is one unit, and its loss that of choosing."""

    inputs: list[dict[str, Tensor]]
    """By sequence: what the model reads, [length] int32 each."""
    first: list[int]
    """The first sequence of each unit."""
    targets: Tensor
    """[U, K] float32: the probabilities that the student's are pulled towards."""
    present: Tensor
    """[U, K] bool: the choices that a unit has."""
    row_weights: Tensor
    """[U] float32."""
    padding: dict[str, int]
    """What each input is padded with."""
    classes: bool
    """Whether a sequence is answered with the logits of all choices."""

    def coefficients(self, units: Sequence[int]) -> Tensor:
        """Shares of the weights: the loss is the weighted mean over the rows."""
        weights = self.row_weights[list(units)]
        return weights / weights.sum()

    def losses(self, model: nn.Module, units: Sequence[int], device: torch.device) -> Losses:
        """Cross-entropies of the choices."""
        read = [
            self.inputs[self.first[unit] + number]
            for unit in units
            for number in range(self.sequences[unit])
        ]
        inputs = {
            name: pad_sequence([one[name] for one in read], batch_first=True, padding_value=value)
            for name, value in self.padding.items()
        }
        present = self.present[list(units)].to(device)
        targets = self.targets[list(units)].to(device)
        moved = {name: padded.long().to(device) for name, padded in inputs.items()}
        logits = self._logits(model, moved, present)
        losses = choice_losses(logits, targets, present)
        if torch.is_grad_enabled():
            return Losses(losses, None)
        chosen = logits.masked_fill(~present, -torch.inf).argmax(-1)
        return Losses(losses, chosen == targets.argmax(-1))

    def _logits(self, model: nn.Module, inputs: dict[str, Tensor], present: Tensor) -> Tensor:
        """[U, K] float32."""
        if self.classes:
            found: Tensor = model(**inputs).logits
            return found.float()
        # To the model every choice is a question with one choice: none is read for padding.
        scores: Tensor = model(**{name: ids[:, None] for name, ids in inputs.items()}).logits
        return scores.new_zeros(present.shape).float().masked_scatter(present, scores.float())


class Encoder(Family):
    """A model that chooses."""

    pipeline_tag: ClassVar[str] = "text-classification"
    columns: ClassVar[list[str]] = ["id", "question", "choices", "answer", "logits", "weight"]

    def __init__(self, student: Student, base: Path, choices: list[str], seed: int) -> None:
        super().__init__(student, base, choices, seed)
        self.auto_class = (
            AutoModelForSequenceClassification
            if student.head == "classes"
            else AutoModelForMultipleChoice
        )
        # Saved with the student, so that serving cuts where training did.
        longest = min(student.train.max_length, self.tokenizer.model_max_length)
        self.tokenizer.model_max_length = longest

    def build(self, dtype: torch.dtype) -> PreTrainedModel:
        """The base model with a new head, drawn from the seed."""
        torch.manual_seed(stream(self.seed, "head"))
        return super().build(dtype)

    def building(self) -> dict[str, Any]:
        """The head's size and names; a head that the base has for others is left out."""
        if self.student.head == "choices":
            return {"ignore_mismatched_sizes": True}
        return {
            "ignore_mismatched_sizes": True,
            "num_labels": len(self.choices),
            "id2label": dict(enumerate(self.choices)),
            "label2id": {choice: number for number, choice in enumerate(self.choices)},
        }

    def units(self, table: pa.Table) -> ChoiceUnits:
        """One unit a row."""
        choices = table["choices"].to_pylist()
        sequences = [1 if self.student.head == "classes" else len(one) for one in choices]
        encoded = self._encode(table["question"].to_pylist(), choices)
        names = [name for name in encoded if name != "attention_mask"] + ["attention_mask"]
        columns = [
            [torch.tensor(ids, dtype=torch.int32) for ids in encoded[name]] for name in names
        ]
        inputs = [dict(zip(names, one, strict=True)) for one in zip(*columns, strict=True)]
        lengths = [len(ids) for ids in encoded["input_ids"]]
        first = [0]
        for number in sequences:
            first.append(first[-1] + number)
        spans = [lengths[begin:end] for begin, end in pairwise(first)]
        cut = [bool(one.overflowing) for one in encoded.encodings]
        targets, present = self._targets(table)
        return ChoiceUnits(
            of_row=[[number] for number in range(table.num_rows)],
            sides=np.array([[max(span)] for span in spans]),
            sequences=np.array(sequences),
            tokens=np.array([sum(span) for span in spans]),
            cut=sum(any(cut[begin:end]) for begin, end in pairwise(first)),
            inputs=inputs,
            first=first[:-1],
            targets=targets,
            present=present,
            row_weights=torch.tensor(table["weight"].to_pylist()),
            padding=dict.fromkeys(names, 0) | {"input_ids": self.tokenizer.pad_token_id},
            classes=self.student.head == "classes",
        )

    def sample(self, table: pa.Table) -> dict[str, Tensor]:
        """The first questions; with a head for choices, those with as many choices as the first."""
        rows = table.slice(0, 4 * SAMPLE_ROWS).to_pylist()
        alike = [row for row in rows if len(row["choices"]) == len(rows[0]["choices"])]
        alike = alike[:SAMPLE_ROWS]
        questions = [row["question"] for row in alike]
        encoded = self._encode(questions, [row["choices"] for row in alike], padding=True)
        choices = [] if self.student.head == "classes" else [len(rows[0]["choices"])]
        shape = (len(alike), *choices, -1)
        return {name: torch.tensor(ids).reshape(shape) for name, ids in encoded.items()}

    def _encode(self, questions: list[str], choices: list[list[str]], **settings: Any) -> Any:
        """Questions, or every choice behind its question, as the model reads them."""
        if self.student.head == "classes":
            return self.tokenizer(questions, truncation=True, **settings)
        repeated = [q for q, listed in zip(questions, choices, strict=True) for _ in listed]
        flat = [choice for listed in choices for choice in listed]
        return self.tokenizer(repeated, flat, truncation=True, **settings)

    def _targets(self, table: pa.Table) -> tuple[Tensor, Tensor]:
        """Probabilities [U, K], and which choices there are [U, K]."""
        objective = self.student.objective
        assert isinstance(objective, ChoiceObjective), "the recipe has checked it"
        choices = [len(listed) for listed in table["choices"].to_pylist()]
        present = torch.arange(max(choices)) < torch.tensor(choices)[:, None]
        logits = table["logits"].to_pylist()
        answers = table["answer"].to_pylist()
        teacher = torch.zeros(present.shape)
        for number, scores in enumerate(logits):
            if scores is not None:
                teacher[number, : len(scores)] = torch.tensor(scores)
        targets = choice_targets(
            teacher_logits=teacher,
            has_teacher=torch.tensor([row is not None for row in logits]),
            answers=torch.tensor([-1 if answer is None else answer for answer in answers]),
            hard_weight=objective.hard_weight,
            temperature=objective.temperature,
            choice_mask=present,
        )
        return targets, present
