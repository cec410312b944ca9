"""A student's architecture without its weights: built from config.json alone, on the meta device.

Tensors on the meta device have a shape and a type and no memory, so that a 70B model is built in
seconds on a laptop, and its parameters are counted and not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)

from core.errors import UseError
from core.recipe_students import Lora, Student

if TYPE_CHECKING:
    from torch import nn

MODEL_CLASSES = {
    "encoder": AutoModelForSequenceClassification,
    "seq2seq": AutoModelForSeq2SeqLM,
    "causal": AutoModelForCausalLM,
}
"""The class that a family's models are loaded by."""


@dataclass(frozen=True)
class Size:
    """How many numbers a model consists of; a tied tensor counts once."""

    parameters: int
    trained: int
    """Those that the optimizer moves: all of them, or with LoRA the adapters'."""
    largest: int
    """Numbers in the largest tensor, often the embedding."""


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a model.

    Raises:
        UseError: The folder has none, or one of an architecture that transformers does not know.
    """
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UseError(
            f"model folder {folder}",
            f"its config.json cannot be used: {str(error).strip().splitlines()[0]}",
            "Name a model that transformers loads without remote code.",
        ) from error


def build_empty(
    config: PreTrainedConfig, student: Student, choices: int, dtype: torch.dtype
) -> nn.Module:
    """Build a student's model, with its head and its adapters, on the meta device.

    Args:
        config: Of the model that it starts from.
        student: What the recipe says of it.
        choices: Of a row; a head for choices has one logit, whatever their number.
        dtype: Of the weights.

    Raises:
        UseError: The model is of another family.
    """
    if student.family == "encoder":
        config.num_labels = choices if student.head == "classes" else 1
    else:
        config.use_cache = False
    try:
        with torch.device("meta"):
            model: nn.Module = MODEL_CLASSES[student.family].from_config(config, dtype=dtype)
            if student.train.lora is not None:
                model = _with_adapters(model, student.train.lora).to(dtype)
    except ValueError as error:  # transformers has no class of this family for the architecture
        raise UseError(
            f"model '{student.model}'",
            f"it is a {config.model_type}, and no {student.family} model.",
            "Name the family that it is of.",
        ) from error
    return model.train()


def _with_adapters(model: nn.Module, lora: Lora) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
    )
    adapted: nn.Module = get_peft_model(model, settings)
    return adapted


def size_of(model: nn.Module) -> Size:
    """Count a model's parameters."""
    parameters = list(model.parameters())
    return Size(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        largest=max(p.numel() for p in parameters),
    )
