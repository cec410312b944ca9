"""Training by DeepSpeed: its ZeRO stages divide optimizer, gradients and weights among workers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.checkpoint import ds_to_universal
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations import HfDeepSpeedConfig

from core.recipe_students import Train
from training.schedule import Schedule
from training.strategy import (
    GRADIENT_NORM,
    Strategy,
    optimizer_of,
    precision_of,
    scheduler_of,
)

TAG = "engine"


def zero_config(train: Train, *, universal: bool = False) -> dict[str, Any]:
    """DeepSpeed's configuration of a training.

    Args:
        train: With a ZeRO stage.
        universal: Whether the checkpoint to go on from is a universal one.
    """
    stage: dict[str, Any] = {"stage": train.zero_stage}
    if train.zero_stage == 3:
        stage["stage3_gather_16bit_weights_on_model_save"] = False
    if train.offload is not None:
        pinned = {"device": "cpu", "pin_memory": train.device.gpus > 0}
        if train.offload.optimizer:
            stage["offload_optimizer"] = pinned
        if train.offload.parameters:
            stage["offload_param"] = pinned
    return {
        # Only DeepSpeed's own statistics read it: the size of a batch varies.
        "train_micro_batch_size_per_gpu": 1,
        # With offload it looks whether gradients are ever added up; how many is ours to say.
        "gradient_accumulation_steps": 2,
        "gradient_clipping": GRADIENT_NORM,
        "zero_optimization": stage,
        "bf16": {"enabled": precision_of(train) == torch.bfloat16},
        "zero_force_ds_cpu_optimizer": False,  # torch's own is as quick, and needs no compiler
        "checkpoint": {"load_universal": universal},
    }


def divided_from_the_start(train: Train) -> Any:
    """With ZeRO stage 3: has transformers divide weights among workers while it loads them.

    Returns:
        To be kept for as long as a model is built.
    """
    return HfDeepSpeedConfig(zero_config(train)) if train.zero_stage == 3 else None


class Zero(Strategy):
    """A model in training under DeepSpeed."""

    def __init__(
        self, model: PreTrainedModel, train: Train, schedule: Schedule, *, universal: bool
    ) -> None:
        """Put a model under DeepSpeed; every worker calls this.

        Args:
            model: On the CPU, or divided already with ZeRO stage 3.
            train: With a ZeRO stage.
            schedule: Of the training.
            universal: Whether the checkpoint that will be loaded is a universal one.
        """
        if train.device.gpus == 0:
            # DeepSpeed would compile an all-reduce over shared memory when first used: half a
            # minute, and a C++ compiler in every image. With this op marked as missing it uses
            # gloo.
            deepspeed.ops.__compatible_ops__ = {}
        self.bare = model
        self._workers = dist.get_world_size()
        self._optimizer = optimizer_of(model, train)
        self.model, *_ = deepspeed.initialize(
            model=model,
            optimizer=self._optimizer,
            lr_scheduler=lambda wrapped: scheduler_of(wrapped, train, schedule),
            config=zero_config(train, universal=universal),
        )
        self.device = self.model.device
        if self._workers == 1 and train.zero_stage == 0:
            # Averaging with nobody would still copy every gradient twice, a fifth of a step on a
            # CPU.
            self.model.enable_backward_allreduce = False

    def arithmetic(self) -> AbstractContextManager[None]:
        """The model has the precision itself."""
        return nullcontext()

    @contextmanager
    def part(self, *, last: bool) -> Iterator[None]:
        """Batches have as many parts as they need: DeepSpeed is told which is the last."""
        self.model.set_gradient_accumulation_boundary(is_boundary=last)
        yield

    def backward(self, loss: Tensor) -> None:
        """Add gradients, of which DeepSpeed takes the mean over workers: each loss is a part."""
        self.model.backward(loss * self._workers, scale_wrt_gas=False)

    def step(self) -> float | None:
        """Clip and step; without ZeRO, DeepSpeed keeps the norm to itself."""
        self.model.step()
        norm = self.model.get_global_grad_norm()
        return None if norm is None else float(norm)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.model.get_lr()[0])

    def save(self, folder: Path) -> None:
        """Write this worker's part, without the weights that are not learnt."""
        self.model.save_checkpoint(folder, tag=TAG, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """Read this worker's part, or of a universal checkpoint what it needs."""
        decays = [group["weight_decay"] for group in self._optimizer.param_groups]
        path, _ = self.model.load_checkpoint(folder, tag=TAG, load_module_strict=False)
        if path is None:  # DeepSpeed only logs it
            raise FileNotFoundError(f"DeepSpeed finds no checkpoint in {folder / TAG}")
        # At stage 3 a universal checkpoint gives every group the settings of the first, and one
        # count of steps, to which each of them then adds its own.
        for group, decay in zip(self._optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        for state in self._optimizer.state.values():
            state["step"] = state["step"].clone().reshape(()).to(state["exp_avg"].device)


def to_universal(folder: Path, target: Path) -> None:
    """Make of a checkpoint of any number of workers one that any number can read.

    Args:
        folder: Of the checkpoint, with the parts of all workers.
        target: Folder to write the other into.
    """
    ds_to_universal.main(
        Namespace(
            input_folder=str(folder / TAG),
            output_folder=str(target / TAG),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,  # what stages 1 and 2 leave out: the format's version
        )
    )


def zero_weights(folder: Path, zero_stage: int) -> dict[str, Tensor]:
    """The learnt weights of a checkpoint, put together on the CPU."""
    if zero_stage == 0:
        path = folder / TAG / "mp_rank_00_model_states.pt"
        found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=False)[
            "module"
        ]
        return found
    weights: dict[str, Tensor] = get_fp32_state_dict_from_zero_checkpoint(
        str(folder), tag=TAG, exclude_frozen_parameters=True
    )
    return weights
