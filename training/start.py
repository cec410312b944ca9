"""From a job to a model in training, new or where a killed attempt left it."""

from __future__ import annotations

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from training import checkpoints
from training.checkpoints import Found, State
from training.ddp import Ddp
from training.family import Family
from training.job import Job
from training.strategy import Strategy, precision_of


def start(job: Job, family: Family) -> tuple[Strategy, State]:
    """Build the model, put it under its strategy, and load the last checkpoint if there is one.

    Every worker calls this.
    """
    with checkpoints.latest() as found:
        if job.train.zero_stage is None:
            return _start_ddp(job, family, found)
        return _start_zero(job, family, found)


def _start_ddp(job: Job, family: Family, found: Found | None) -> tuple[Strategy, State]:
    strategy = Ddp(model_of(job, family, torch.float32), job.train, job.schedule)
    if found is None:
        return strategy, State()
    with checkpoints.readable(found.folder):
        strategy.load(found.folder)
    return strategy, found.state


def _start_zero(job: Job, family: Family, found: Found | None) -> tuple[Strategy, State]:
    from training.zero import Zero, divided_from_the_start, to_universal

    # transformers looks for it for as long as it lives, and the export builds a whole model.
    divides = divided_from_the_start(job.train)
    model = model_of(job, family, precision_of(job.train))
    del divides
    other_workers = found is not None and found.workers != dist.get_world_size()
    universal = other_workers and bool(job.train.zero_stage)  # stage 0 divides nothing
    strategy = Zero(model, job.train, job.schedule, universal=universal)
    if found is None:
        return strategy, State()
    with checkpoints.readable(found.folder):
        if universal:
            with checkpoints.universal(found, job.storage, to_universal) as folder:
                strategy.load(folder)
        else:
            strategy.load(found.folder)
    return strategy, found.state


def model_of(job: Job, family: Family, dtype: torch.dtype) -> PreTrainedModel:
    """The model that the training starts from, with what the recipe puts on it."""
    model = family.build(dtype)
    if job.train.activation_checkpointing:
        model.config.use_cache = False
        model.gradient_checkpointing_enable({"use_reentrant": False})
    lora = job.train.lora
    if lora is None:
        return model
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
    )
    torch.manual_seed(job.seed)
    return get_peft_model(model, settings)
