"""One of the workers whose memory `tests/integration/test_memory.py` looks at.

    python -m tests.memory_worker RANK WORKERS PORT SETTINGS OUTPUT

It takes three steps, of two passes each, of a real training of a small Llama under each setting. Of
the second it writes down what was live before the optimizer's step, of the third the most that was
allocated at once.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig

from core.recipe_students import Train
from training.memory import REDUCE_BUCKET
from training.objectives import sequence_losses
from training.schedule import Schedule

# Every matrix has more numbers than DeepSpeed leaves undivided at stage 3: 100,000.
LLAMA = {
    "vocab_size": 2000,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 512,
}
SEQUENCES, LENGTH, ANSWER = 4, 96, 32


def live_bytes() -> int:
    """Of all tensors that Python knows of, each storage once, but for DeepSpeed's buckets.

    They have the same size whatever the model, and dwarf the small one here.
    """
    gc.collect()
    storages = {}
    for found in gc.get_objects():
        if issubclass(type(found), Tensor) and found.device.type == "cpu":
            storage = found.untyped_storage()
            if storage.nbytes() // found.element_size() != REDUCE_BUCKET:
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def highest(profiler: profile) -> int:
    """The most that was allocated at once since the profiler began, less what was freed."""
    events = profiler.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    buckets = {2 * REDUCE_BUCKET, 4 * REDUCE_BUCKET}
    changes = [change for change in changes if abs(change[1]) not in buckets]
    now = most = 0
    for _, change in sorted(changes, key=lambda one: one[0]):
        now += change
        most = max(most, now)
    return most


def loss_of(model, rank: int) -> Tensor:
    """As `training.causal` reads prompts and targets."""
    tokens = torch.randint(
        LLAMA["vocab_size"], (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(rank)
    )
    mask = torch.ones_like(tokens)
    mask[0, 0] = 0  # padding, so that attention has a mask
    keep = torch.arange(LENGTH - ANSWER - 1, LENGTH - 1)
    logits = model(input_ids=tokens, attention_mask=mask, logits_to_keep=keep).logits
    return sequence_losses(logits, tokens[:, -ANSWER:]).sum()


def train_one(train: Train, rank: int) -> dict[str, int]:
    from training.zero import Zero, divided_from_the_start

    before = live_bytes()
    torch.manual_seed(0)
    kept = divided_from_the_start(train)
    dtype = torch.bfloat16 if train.precision == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA, use_cache=False), dtype=dtype)
    del kept
    if train.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    schedule = Schedule(
        training_rows=8, validation_rows=0, steps_per_epoch=1, epochs=2, warmup_steps=1
    )
    strategy = Zero(model, train, schedule, universal=False)
    strategy.model.train()

    def step(*, looks: bool) -> int:
        for last in (False, True):
            with strategy.part(last=last):
                strategy.backward(loss_of(strategy.model, rank))
        live = live_bytes() - before if looks else 0
        strategy.step()
        return live

    step(looks=False)
    base = live_bytes() - before
    live = step(looks=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(looks=False)
    return {"live": live, "base": base, "highest": base + highest(profiler)}


def join() -> None:
    """Meet the other workers, as the command line says."""
    rank, workers, port = sys.argv[1:4]
    os.environ |= {
        "RANK": rank,
        "LOCAL_RANK": "0",
        "WORLD_SIZE": workers,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "DS_ACCELERATOR": "cpu",
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo")


def main() -> None:
    rank = int(sys.argv[1])
    join()
    found = [train_one(Train.model_validate(setting), rank) for setting in json.loads(sys.argv[4])]
    Path(sys.argv[5]).write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
