"""Which rows each step of a training sees: decided by seed, epoch and step alone.

Nothing here remembers anything, so that a resumed training asks for step 1234 and gets the very
rows that the killed one would have taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from core.identity import content_id
from training.schedule import Schedule

BATCHES_PER_BUCKET = 200
"""Batches whose rows are put together by shape: enough that rows of any shape find others like
them, few enough that a batch of a large set has other rows in every epoch."""


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
    rows: Sequence[int], shapes: np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """The batches of one epoch: each row once, rows of like shape together, in random order.

    Args:
        rows: Numbers of the rows to go through.
        shapes: Tokens of every row, by its number, one column for each thing that is padded for
            itself; [all rows, columns] integers.
        batch_size: Rows of a batch; the epoch's shortest batch has what is left over.
        seed: The training's seed.
        epoch: Counted from 0.
    """
    order = _shuffled(rows, stream(seed, "rows", epoch))
    batches = []
    bucket = batch_size * BATCHES_PER_BUCKET
    for begin in range(0, len(order), bucket):
        batches += alike(order[begin : begin + bucket], shapes, batch_size)
    return [batches[i] for i in _shuffled(range(len(batches)), stream(seed, "batches", epoch))]


def alike(numbers: Sequence[int], shapes: np.ndarray, size: int) -> list[list[int]]:
    """Groups of like shape: halves of halves, each along the column in which they differ most.

    With one column that is sorting by it.

    Args:
        numbers: What to group. What has the same shape stays in this order.
        shapes: By number; [all, columns] integers, so that every machine finds the same groups.
        size: Of a group; the last has what is left over.
    """
    return list(_halved(np.array(numbers, dtype=np.int64), shapes, size))


def _halved(numbers: np.ndarray, shapes: np.ndarray, size: int) -> Iterator[list[int]]:
    if len(numbers) <= size:
        yield numbers.tolist()
        return
    found = shapes[numbers]
    middle = np.sort(found, axis=0)[len(found) // 2]
    column = np.abs(found - middle).sum(axis=0).argmax()
    numbers = numbers[found[:, column].argsort(kind="stable")]
    half = -(-len(numbers) // size) // 2 * size
    yield from _halved(numbers[:half], shapes, size)
    yield from _halved(numbers[half:], shapes, size)
