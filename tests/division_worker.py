"""One of the workers of which `tests/integration/test_memory.py` sees that none has all weights.

    python -m tests.division_worker RANK WORKERS PORT MODEL OUTPUT

It loads a model with ZeRO stage 3 as a training does, and takes steps. It writes down the bytes of
all weights, the most memory of its own that it had while it loaded them, and the most weights that
stood whole at once in a step.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

from core.recipe_students import Student
from tests.memory_worker import join, loss_of
from training import zero
from training.causal import Causal
from training.schedule import Schedule

LAYER = 10_500_000
"""Numbers of a layer's weights, about."""


def own_bytes() -> int:
    """Memory that is this process's alone: not the pages of a file that workers read together."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise AssertionError("Linux tells it")


@contextmanager
def watched(most: list[int]) -> Iterator[None]:
    """Note the most memory while the block runs."""
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            most.append(own_bytes())
            time.sleep(0.001)

    thread = threading.Thread(target=look)
    thread.start()
    yield
    done.set()
    thread.join()


def scaled(config):
    """DeepSpeed's limits of what is gathered are larger than the small model: for it, a layer."""

    def smaller(train, **more):
        found = config(train, **more)
        found["zero_optimization"] |= {
            "stage3_max_live_parameters": LAYER,
            "stage3_max_reuse_distance": LAYER,
            "stage3_prefetch_bucket_size": LAYER // 4,
        }
        return found

    return smaller


def main() -> None:
    rank = int(sys.argv[1])
    join()
    zero.zero_config = scaled(zero.zero_config)
    folder = Path(sys.argv[4])
    student = Student.model_validate(
        {"family": "causal", "model": str(folder), "train": {"zero_stage": 3, "workers": 2}}
    )
    family = Causal(student, folder, [], 1)
    loading: list[int] = []
    before = own_bytes()
    with watched(loading):
        divides = zero.divided_from_the_start(student.train)
        model = family.build(torch.float32)
        del divides
    kept = own_bytes() - before
    model.config.use_cache = False
    weights = list(model.parameters())
    schedule = Schedule(
        training_rows=8, validation_rows=0, steps_per_epoch=1, epochs=2, warmup_steps=1
    )
    strategy = zero.Zero(model, student.train, schedule, universal=False)
    whole: list[int] = []

    def count(*_: object) -> None:
        there = [p for p in weights if p.ds_status == ZeroParamStatus.AVAILABLE]
        whole.append(sum(p.ds_numel for p in there))

    for module in model.modules():
        module.register_forward_hook(count)
        module.register_full_backward_hook(count)
    for _ in range(2):
        with strategy.part(last=True):
            strategy.backward(loss_of(strategy.model, rank))
        strategy.step()
    numbers = sum(p.ds_numel for p in weights)
    found = {
        "weights": 4 * numbers,
        "loading": max(loading) - before,
        "kept": kept,
        "numbers": numbers,
        "whole": max(whole),
    }
    Path(sys.argv[5]).write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
