"""Causal students: Llama, Qwen, Gemma, SmolLM and the like write on from a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from training.family import SAMPLE_ROWS
from training.texts import NOT_LEARNT, TextUnits
from training.writer import Writer, padded


@dataclass(frozen=True)
class CausalUnits(TextUnits):
    """A prompt and its target are one sequence; the loss is on the target alone."""

    def read(
        self, model: nn.Module, units: Sequence[int], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """What the model thinks at the places before the targets' tokens."""
        sequences = [torch.cat([self.prompts[unit], self.targets[unit]]) for unit in units]
        labels = [ids.clone() for ids in sequences]
        for unit, ids in zip(units, labels, strict=True):
            ids[: len(self.prompts[unit])] = NOT_LEARNT
        tokens, mask = padded(sequences, self.pad_token)
        wanted, _ = padded(labels, NOT_LEARNT)
        # Logits of a large vocabulary are most of the memory: none before the shortest prompt ends.
        begin = min(len(self.prompts[unit]) for unit in units) - 1
        keep = torch.arange(begin, tokens.shape[1] - 1)
        logits = model(
            input_ids=tokens.to(device),
            attention_mask=mask.to(device),
            logits_to_keep=keep.to(device),
        ).logits
        return logits, wanted[:, begin + 1 :].to(device)


class Causal(Writer):
    """A model that writes on."""

    auto_class: Any = AutoModelForCausalLM
    pipeline_tag: ClassVar[str] = "text-generation"
    units_class: ClassVar[type[TextUnits]] = CausalUnits

    def sides(self, lengths: np.ndarray) -> np.ndarray:
        """Prompt and target are one sequence."""
        whole: np.ndarray = lengths.sum(axis=1, keepdims=True)
        return whole

    def sample(self, table: pa.Table) -> dict[str, Tensor]:
        """The first prompts, padded behind."""
        rows = table.slice(0, SAMPLE_ROWS).to_pylist()
        tokens, mask = self.first_prompts(rows)
        return {"input_ids": tokens, "attention_mask": mask}
