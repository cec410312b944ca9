"""Which rows each step of a training sees: decided by seed, epoch and step alone.

Nothing here remembers anything, so that a resumed training asks for step 1234 and gets the very
rows that the killed one would have taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from core.identity import content_id
from training.schedule import Schedule

BATCHES_PER_BUCKET = 50
"""Batches whose rows are sorted by length together: long enough for little padding, short enough
that an epoch of a large set is still in a random order."""


def stream(seed: int, *key: str | int) -> int:
    """The seed of one purpose: streams of different keys do not depend on one another."""
    return int(content_id(seed, *key)[:15], 16)  # 60 bits: torch takes 64 with a sign


def _shuffled(items: Sequence[int], seed: int) -> list[int]:
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))
    return [items[i] for i in order.tolist()]


def split(schedule: Schedule, seed: int) -> tuple[list[int], list[int]]:
    """Part the rows, by their numbers, into those to train on and those held out."""
    total = schedule.training_rows + schedule.validation_rows
    order = _shuffled(range(total), stream(seed, "validation"))
    held_out = order[: schedule.validation_rows]
    return sorted(order[schedule.validation_rows :]), sorted(held_out)


def epoch_batches(
    rows: Sequence[int], lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """The batches of one epoch: each row once, rows of like length together, in random order.

    Args:
        rows: Numbers of the rows to go through.
        lengths: Tokens of every row, by its number.
        batch_size: Rows of a batch; the epoch's shortest batch has what is left over.
        seed: The training's seed.
        epoch: Counted from 0.
    """
    order = _shuffled(rows, stream(seed, "rows", epoch))
    batches = []
    bucket = batch_size * BATCHES_PER_BUCKET
    for begin in range(0, len(order), bucket):
        alike = sorted(order[begin : begin + bucket], key=lambda row: lengths[row])
        batches += [alike[i : i + batch_size] for i in range(0, len(alike), batch_size)]
    return [batches[i] for i in _shuffled(range(len(batches)), stream(seed, "batches", epoch))]
