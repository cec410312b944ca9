"""Training by torch's DistributedDataParallel: every worker holds the whole model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from ray.train.torch import get_device
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel

from core.recipe_students import Train
from training.schedule import Schedule
from training.strategy import (
    GRADIENT_NORM,
    Strategy,
    optimizer_of,
    precision_of,
    scheduler_of,
)

FILE = "training.pt"


class Ddp(Strategy):
    """A model in training, with weights of float32."""

    def __init__(self, model: PreTrainedModel, train: Train, schedule: Schedule) -> None:
        self.device = get_device()
        self.bare = model.to(self.device)
        self._workers = dist.get_world_size()
        self._precision = precision_of(train)
        if self._workers > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            # Buffers are the same everywhere: nothing that these models learn stands in one.
            self.model = DistributedDataParallel(
                self.bare, device_ids=devices, broadcast_buffers=False
            )
        else:
            self.model = self.bare
        self._optimizer = optimizer_of(self.bare, train)
        self._scheduler = scheduler_of(self._optimizer, train, schedule)

    def arithmetic(self) -> AbstractContextManager[None]:
        """Autocast, where the precision is not that of the weights."""
        half = self._precision != torch.float32
        return torch.autocast(self.device.type, self._precision, enabled=half)

    @contextmanager
    def part(self, *, last: bool) -> Iterator[None]:
        """Workers put their gradients together in the last part alone."""
        waits = self._workers > 1 and not last
        with self.model.no_sync() if waits else nullcontext():
            yield

    def backward(self, loss: Tensor) -> None:
        """Add gradients; DDP takes their mean over the workers, and each loss is part of a sum."""
        torch.autograd.backward(loss * self._workers)

    def step(self) -> float:
        """Clip, step, and forget the gradients."""
        norm = clip_grad_norm_(self.bare.parameters(), GRADIENT_NORM)
        self._optimizer.step()
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm.item()

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self._scheduler.get_last_lr()[0])

    def save(self, folder: Path) -> None:
        """Write what is learnt, once for all workers."""
        if dist.get_rank() == 0:
            state = {
                "weights": learnt(self.bare),
                "optimizer": self._optimizer.state_dict(),
                "scheduler": self._scheduler.state_dict(),
            }
            torch.save(state, folder / FILE)

    def load(self, folder: Path) -> None:
        """Read it; how many workers wrote it does not matter."""
        state = torch.load(folder / FILE, map_location=self.device, weights_only=True)
        self.bare.load_state_dict(state["weights"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])


def learnt(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights that training changes, by name; equal ones under each of their names."""
    names = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name in names}


def ddp_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, on the CPU."""
    state = torch.load(folder / FILE, map_location="cpu", weights_only=True, mmap=True)
    weights: dict[str, Tensor] = state["weights"]
    return weights
