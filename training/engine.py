"""DeepSpeed around a model: precision, ZeRO, AdamW and the learning rate's course."""

from __future__ import annotations

import math
from typing import Any

import deepspeed
import torch
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from core.recipe_students import Train

GRADIENT_NORM = 1.0
"""Gradients are scaled down to this norm, as is usual where transformers are fine-tuned."""


def start_engine(model: PreTrainedModel, train: Train, steps: int, workers: int) -> Any:
    """Put a model under DeepSpeed; every worker calls this.

    The weights stay float32. On GPUs the arithmetic is bfloat16 by autocast; CPUs would emulate it.
    """
    if train.device.gpus == 0:
        # DeepSpeed would compile an all-reduce over shared memory when first used: half a minute,
        # and a C++ compiler in every image. With this op marked as missing it uses gloo.
        deepspeed.ops.__compatible_ops__ = {}
    optimizer = torch.optim.AdamW(
        _decay_groups(model, train.weight_decay), lr=train.learning_rate, fused=True
    )
    warmup = math.ceil(steps * train.warmup_share)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        lr_scheduler=lambda wrapped: get_linear_schedule_with_warmup(wrapped, warmup, steps),
        config={
            # Only DeepSpeed's own statistics read it: the size of a batch varies.
            "train_micro_batch_size_per_gpu": math.ceil(train.batch_size / workers),
            "gradient_clipping": GRADIENT_NORM,
            "zero_optimization": {"stage": train.zero_stage},
            "torch_autocast": {"enabled": train.device.gpus > 0, "dtype": "bfloat16"},
        },
    )
    if workers == 1 and train.zero_stage == 0:
        # Averaging with nobody would still copy every gradient twice, a fifth of a step on a CPU.
        engine.enable_backward_allreduce = False
    return engine


def _decay_groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices only: biases and norms have nothing to gain from being small."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
