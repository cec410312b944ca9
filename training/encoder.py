"""The encoder student: one logit for each choice of a fixed list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from core.recipe_students import Objective
from training.batches import stream
from training.objectives import choice_targets


def load_tokenizer(base: Path, max_length: int) -> PreTrainedTokenizerFast:
    """The base model's tokenizer, which cuts what is longer than the student will read."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    # Saved with the student, so that serving cuts where training did.
    tokenizer.model_max_length = min(max_length, tokenizer.model_max_length)
    return tokenizer


def build_encoder(base: Path, choices: Sequence[str], seed: int) -> PreTrainedModel:
    """The base model with a new head of one logit per choice, drawn from the seed."""
    torch.manual_seed(stream(seed, "head"))
    return AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=len(choices),
        id2label=dict(enumerate(choices)),
        label2id={choice: i for i, choice in enumerate(choices)},
        ignore_mismatched_sizes=True,  # a base that has a head for other choices loses it
        use_safetensors=True,
        dtype=torch.float32,
    )


@dataclass(frozen=True)
class Examples:
    """Rows as a student reads them; a row is known by its number in the table."""

    tokens: list[Tensor]
    """[length] int64 token ids of each row."""
    cut: int
    """Rows whose question was longer than the student reads."""
    targets: Tensor
    """[N, K] float32: the probabilities that the student's are pulled towards."""
    weights: Tensor
    """[N] float32, of the rows in the loss."""
    pad_token: int

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(tokens) for tokens in self.tokens]


def encode(tokenizer: PreTrainedTokenizerFast, table: pa.Table, objective: Objective) -> Examples:
    """Turn rows of `core.rows.TRAINING` into tensors.

    Args:
        tokenizer: The student's.
        table: At least one row, checked by `training.rows`.
        objective: The loss.
    """
    encoded = tokenizer(table["question"].to_pylist(), truncation=True)
    logits = table["logits"].to_pylist()
    no_logits = [0.0] * len(table["choices"][0])
    answers = table["answer"].to_pylist()
    targets = choice_targets(
        teacher_logits=torch.tensor([no_logits if row is None else row for row in logits]),
        has_teacher=torch.tensor([row is not None for row in logits]),
        answers=torch.tensor([-1 if answer is None else answer for answer in answers]),
        hard_weight=objective.hard_weight,
        temperature=objective.temperature,
    )
    return Examples(
        tokens=[torch.tensor(ids) for ids in encoded["input_ids"]],
        cut=sum(bool(encoding.overflowing) for encoding in encoded.encodings),
        targets=targets,
        weights=torch.tensor(table["weight"].to_pylist()),
        pad_token=tokenizer.pad_token_id,
    )


@dataclass(frozen=True)
class Batch:
    """Some rows, padded to the longest of them."""

    inputs: dict[str, Tensor]
    """`input_ids` and `attention_mask`, [B, L] int64."""
    targets: Tensor
    """[B, K]."""
    weights: Tensor
    """[B]."""


def collate(examples: Examples, rows: Sequence[int], device: torch.device) -> Batch:
    """Put rows together on a device.

    A worker without rows (an epoch's last batch may have fewer rows than there are workers) gets
    one that weighs nothing, because it must take part in the others' collectives.
    """
    numbers = list(rows) or [0]
    tokens = [examples.tokens[number] for number in numbers]
    padded = pad_sequence(tokens, batch_first=True, padding_value=examples.pad_token)
    lengths = torch.tensor([len(ids) for ids in tokens])
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    return Batch(
        inputs={"input_ids": padded.to(device), "attention_mask": mask.to(device)},
        targets=examples.targets[numbers].to(device),
        weights=(examples.weights[numbers] if rows else torch.zeros(1)).to(device),
    )
