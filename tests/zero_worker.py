"""One of the workers of a training under DeepSpeed that goes on with another number of them.

    python -m tests.zero_worker RANK WORKERS PORT TOLD OUTPUT

`TOLD` has `stages`, of ZeRO; `folder`, where checkpoints are; and `steps`, from the first to
the last one. From a step other than 0 it goes on from the checkpoint of each stage, and at its last
one it writes one. It writes down the loss of every step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig

from core.recipe_students import Train
from tests.memory_worker import join
from training.schedule import Schedule
from training.zero import Zero, divided_from_the_start, to_universal

LLAMA = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    use_cache=False,
)
SCHEDULE = Schedule(
    training_rows=80, validation_rows=0, steps_per_epoch=10, epochs=2, warmup_steps=2
)
SEQUENCES = 4


def loss_of(strategy: Zero, step: int) -> torch.Tensor:
    """This worker's part of a step's loss: of words that each follow from the one before."""
    draw = torch.Generator().manual_seed(step)
    first = torch.randint(64, (SEQUENCES, 1), generator=draw)
    tokens = (first + 3 * torch.arange(12)) % 64
    mine = tokens[dist.get_rank() :: dist.get_world_size()]
    logits = strategy.model(input_ids=mine).logits[:, :-1]
    losses = functional.cross_entropy(logits.flatten(0, 1), mine[:, 1:].flatten(), reduction="sum")
    return losses / (11 * SEQUENCES)


def train(stage: int, folder: Path, first: int, last: int) -> list[float]:
    """Take some steps of one training."""
    torch.manual_seed(0)
    # So much decay that a bias or a norm that wrongly decays shows.
    section = Train(zero_stage=stage, learning_rate=1e-2, weight_decay=1.0)
    kept = divided_from_the_start(section)
    model = AutoModelForCausalLM.from_config(LLAMA, dtype=torch.float32)
    del kept
    universal = first > 0 and stage > 0
    strategy = Zero(model, section, SCHEDULE, universal=universal)
    if first:
        if universal and dist.get_rank() == 0:
            to_universal(folder, folder / "universal")
        dist.barrier()
        strategy.load(folder / "universal" if universal else folder)
    strategy.model.train()
    losses = []
    for step in range(first, last):
        with strategy.part(last=True):
            loss = loss_of(strategy, step)
            strategy.backward(loss)
        strategy.step()
        whole = loss.detach().clone()
        dist.all_reduce(whole)
        losses.append(whole.item())
    strategy.save(folder)
    return losses


def main() -> None:
    join()
    told = json.loads(sys.argv[4])
    folder, stages = Path(told["folder"]), told["stages"]
    losses = [train(stage, folder / str(stage), *told["steps"]) for stage in stages]
    Path(sys.argv[5]).write_text(json.dumps(losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
