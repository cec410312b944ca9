"""What the loop must know of a kind of student: how it is built, fed, and proven at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from core.recipe_students import SequenceObjective, Student
from core.student_reading import StudentReading
from training.units import Units

SAMPLE_ROWS = 4
"""Rows on which the exported student is compared with the trained one."""


class Family(ABC):
    """A kind of student, on the model that it starts from."""

    auto_class: Any
    """Of transformers: what loads such a model, trained or not."""
    pipeline_tag: ClassVar[str]
    """What the hub calls its task."""
    columns: ClassVar[list[str]]
    """Of the training rows, those that it reads."""

    def __init__(self, student: Student, base: Path, choices: list[str], seed: int) -> None:
        """Describe the student.

        Args:
            student: The recipe's section.
            base: Folder of the model that it starts from, or of a finished student.
            choices: The task's, where it has a fixed list.
            seed: Of the training.
        """
        self.student = student
        self.choices = choices
        self.seed = seed
        self._base = base
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(base)

    @property
    def reading(self) -> StudentReading:
        """How the finished student is asked."""
        objective = self.student.objective
        prefix = objective.answer_prefix if isinstance(objective, SequenceObjective) else ""
        return StudentReading(
            family=self.student.family,
            head=self.student.head if self.student.family == "encoder" else None,
            objective=objective.kind,
            answer_prefix=prefix,
            max_length=self.student.train.max_length,
            max_answer_length=self.student.train.max_answer_length,
        )

    def build(self, dtype: torch.dtype) -> PreTrainedModel:
        """The model that the training starts from."""
        return self.auto_class.from_pretrained(
            self._base, use_safetensors=True, dtype=dtype, **self.building()
        )

    def building(self) -> dict[str, Any]:
        """What transformers is told beside that, to build a model of this family."""
        return {}

    @abstractmethod
    def units(self, table: pa.Table) -> Units:
        """Turn training rows into units.

        Args:
            table: At least one row, checked by `training.rows`.
        """

    @abstractmethod
    def sample(self, table: pa.Table) -> dict[str, Tensor]:
        """The first rows, as a user would put them to the finished student."""


def logits_of(model: Any, inputs: dict[str, Tensor], device: torch.device) -> Tensor:
    """A model's answer to a sample, [rows, ...] float32 on the CPU; of a prompt, to its end."""
    logits: Tensor = model(**{name: value.to(device) for name, value in inputs.items()}).logits
    if logits.ndim == 3 and "decoder_input_ids" not in inputs:
        last = inputs["attention_mask"].sum(-1) - 1
        logits = logits[torch.arange(len(logits)), last.to(logits.device)]
    return logits.float().cpu()
