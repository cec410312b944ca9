"""Seq2seq students: T5 and the like read a prompt with one half and write with the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from training.family import SAMPLE_ROWS
from training.texts import NOT_LEARNT, TextUnits
from training.writer import Writer, padded


@dataclass(frozen=True)
class Seq2SeqUnits(TextUnits):
    """The encoder reads the prompt, the decoder writes the target."""

    start_token: int
    """What the decoder begins with."""

    def read(
        self, model: nn.Module, units: Sequence[int], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """What the decoder thinks of every token of the targets."""
        tokens, mask = padded([self.prompts[unit] for unit in units], self.pad_token)
        labels, _ = padded([self.targets[unit] for unit in units], NOT_LEARNT)
        before = labels.roll(1, dims=1)
        before[:, 0] = self.start_token
        logits = model(
            input_ids=tokens.to(device),
            attention_mask=mask.to(device),
            decoder_input_ids=before.masked_fill(before == NOT_LEARNT, self.pad_token).to(device),
        ).logits
        return logits, labels.to(device)


class Seq2Seq(Writer):
    """A model that reads and writes."""

    auto_class: Any = AutoModelForSeq2SeqLM
    pipeline_tag: ClassVar[str] = "text2text-generation"
    units_class: ClassVar[type[TextUnits]] = Seq2SeqUnits

    def sides(self, lengths: np.ndarray) -> np.ndarray:
        """Prompts and targets are padded for themselves."""
        return lengths

    def beside(self) -> dict[str, Any]:
        """What the decoder begins with."""
        return {"start_token": self._start_token}

    def sample(self, table: pa.Table) -> dict[str, Tensor]:
        """The first prompts, and the beginning of an answer to each."""
        rows = table.slice(0, SAMPLE_ROWS).to_pylist()
        tokens, mask = self.first_prompts(rows)
        start = torch.full((len(rows), 1), self._start_token)
        return {"input_ids": tokens, "attention_mask": mask, "decoder_input_ids": start}

    @cached_property
    def _start_token(self) -> int:
        return int(AutoConfig.from_pretrained(self._base).decoder_start_token_id)
