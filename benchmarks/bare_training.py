"""A bare training loop, as anybody would write it with torch: nothing of Stillhouse is in it.

    python benchmarks/bare_training.py WORK.json                      torch alone
    deepspeed --num_gpus 2 benchmarks/bare_training.py WORK.json      DeepSpeed as it comes

WORK.json says which model, and what each worker reads in each step; `training_arms.py` writes it.
Worker 0 writes the seconds of each step into the file that WORK.json names.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    get_linear_schedule_with_warmup,
)

Passes = list[dict[str, Any]]
"""Of a step: what goes through the model at once, and its share of the batch's loss."""

NOT_LEARNT = -100
GRADIENT_NORM = 1.0


def padded(sequences: list[list[int]], value: int) -> Tensor:
    """[B, L] int64."""
    return pad_sequence([torch.tensor(ids) for ids in sequences], True, value)


def loss_of_classes(model: nn.Module, read: dict[str, Any]) -> Tensor:
    """Cross-entropy of an encoder's choices, the mean over the rows."""
    inputs = {name: padded(ids, read["padding"][name]) for name, ids in read["inputs"].items()}
    return cross_entropy(model(**inputs).logits, torch.tensor(read["labels"]))


def loss_of_text(model: nn.Module, read: dict[str, Any]) -> Tensor:
    """Cross-entropy of the targets' tokens, the mean over them; no logits before the first."""
    both = [p + t for p, t in zip(read["prompts"], read["targets"], strict=True)]
    tokens = padded(both, read["pad_token"])
    mask = padded([[1] * len(ids) for ids in both], 0)
    labels = padded(
        [[NOT_LEARNT] * len(p) + t for p, t in zip(read["prompts"], read["targets"], strict=True)],
        NOT_LEARNT,
    )
    begin = min(map(len, read["prompts"])) - 1
    keep = torch.arange(begin, tokens.shape[1] - 1)
    logits = model(input_ids=tokens, attention_mask=mask, logits_to_keep=keep).logits
    return cross_entropy(logits.flatten(0, 1), labels[:, begin + 1 :].flatten())


def optimizer_of(model: nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW in which matrices decay and vectors do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def train(model: nn.Module, work: dict[str, Any], steps: list[Passes]) -> list[float]:
    """The seconds of each step, by torch alone."""
    loss_of = LOSSES[work["family"]]
    optimizer = optimizer_of(model, work["learning_rate"])
    scheduler = get_linear_schedule_with_warmup(optimizer, len(steps) // 10, len(steps))
    seconds, began = [], time.perf_counter()
    for passes in steps:
        for read in passes:
            (loss_of(model, read) * read["share"]).backward()
        clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        now = time.perf_counter()
        seconds.append(now - began)
        began = now
    return seconds


def train_with_deepspeed(
    model: nn.Module, work: dict[str, Any], steps: list[Passes]
) -> list[float]:
    """The seconds of each step, by DeepSpeed's own engine; passes are its micro-batches."""
    import deepspeed

    loss_of = LOSSES[work["family"]]
    config = {
        "train_micro_batch_size_per_gpu": 1,  # only its own statistics read it
        "gradient_clipping": GRADIENT_NORM,
        "zero_optimization": {"stage": work["zero_stage"]},
        "zero_force_ds_cpu_optimizer": False,
    }
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer_of(model, work["learning_rate"]),
        lr_scheduler=lambda own: get_linear_schedule_with_warmup(own, len(steps) // 10, len(steps)),
        config=config,
    )
    seconds, began = [], time.perf_counter()
    for passes in steps:
        for number, read in enumerate(passes):
            engine.set_gradient_accumulation_boundary(is_boundary=number == len(passes) - 1)
            engine.backward(loss_of(engine, read) * read["share"])
        engine.step()
        now = time.perf_counter()
        seconds.append(now - began)
        began = now
    return seconds


MODELS = {"encoder": AutoModelForSequenceClassification, "causal": AutoModelForCausalLM}
LOSSES = {"encoder": loss_of_classes, "causal": loss_of_text}


def main() -> None:
    """Train, and write the seconds."""
    work = json.loads(Path(sys.argv[-1]).read_text())
    torch.set_num_threads(work["threads"])
    rank = int(os.environ.get("RANK", "0"))
    torch.manual_seed(0)
    model = MODELS[work["family"]].from_pretrained(
        work["model"], dtype=torch.float32, **work["building"]
    )
    loop = train if work["zero_stage"] is None else train_with_deepspeed
    seconds = loop(model.train(), work, work["steps"][rank])
    if rank == 0:
        Path(work["seconds"]).write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
