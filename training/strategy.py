"""How a model is trained by several workers: what the loop asks of DDP and of DeepSpeed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, get_scheduler

from core.recipe_students import Train
from training.schedule import Schedule

GRADIENT_NORM = 1.0
"""Gradients are scaled down to this norm, as is usual where transformers are fine-tuned."""

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
"""Of the learning rate: transformers' names."""


class Strategy(ABC):
    """A model in training."""

    device: torch.device
    model: Any
    """What computes losses: the model in the wrapper of torch or of DeepSpeed."""
    bare: PreTrainedModel
    """The model itself."""

    @abstractmethod
    def part(self, *, last: bool) -> AbstractContextManager[None]:
        """Where a part of a batch's loss is computed, and its gradients are added.

        Args:
            last: Whether the workers have no further part of the batch.
        """

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add gradients.

        Args:
            loss: This worker's part of the sum that is the batch's loss.
        """

    @abstractmethod
    def step(self) -> float | None:
        """Take the optimizer's step.

        Returns:
            The norm of the gradients before they were scaled down, where the strategy tells it.
        """

    @property
    @abstractmethod
    def learning_rate(self) -> float:
        """Of the next step."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write this worker's part of a checkpoint."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read a checkpoint, which may be of another number of workers."""

    @abstractmethod
    def arithmetic(self) -> AbstractContextManager[None]:
        """Where losses are computed: in the precision of the training."""


def precision_of(train: Train) -> torch.dtype:
    """Of the arithmetic; CPUs would emulate bfloat16."""
    if train.precision is None:
        return torch.bfloat16 if train.device.gpus else torch.float32
    return torch.bfloat16 if train.precision == "bfloat16" else torch.float32


def optimizer_of(model: nn.Module, train: Train) -> AdamW:
    """AdamW that lets matrices decay: biases and norms have nothing to gain from being small."""
    learnt = [p for p in model.parameters() if p.requires_grad]
    # Under ZeRO stage 3 a parameter's own shape is empty, and DeepSpeed keeps the real one.
    matrices = [p for p in learnt if len(getattr(p, "ds_shape", p.shape)) >= 2]
    vectors = [p for p in learnt if len(getattr(p, "ds_shape", p.shape)) < 2]
    groups = [
        {"params": matrices, "weight_decay": train.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=train.learning_rate, fused=True)


def scheduler_of(optimizer: Optimizer, train: Train, schedule: Schedule) -> LRScheduler:
    """The learning rate's course."""
    name = SCHEDULES[train.schedule]
    found: LRScheduler = get_scheduler(name, optimizer, schedule.warmup_steps, schedule.steps)
    return found
