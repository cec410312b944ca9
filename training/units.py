"""What a family makes of the training rows, and how a batch of them is dealt to workers.

A row becomes one or more units. A unit is what has a loss of its own and cannot be divided: a
question with all its choices, or a prompt with what is to be written behind it. An epoch goes
through rows; what is padded, dealt and held in memory are units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.batches import alike

MOST_PADDING = 0.05
"""Of what a batch feeds to a model, where passes can be cut so that it is not more."""

LEAST_SAVING = 0.005
"""Of what a batch feeds: a pass more must save so much."""


@dataclass(frozen=True)
class Losses:
    """Of some units."""

    losses: Tensor
    """[U] float32; what a unit's loss is, its family says."""
    correct: Tensor | None
    """[U] bool: whether the student's first choice was right, of a text at every place. None while
    gradients are wanted."""


@dataclass(frozen=True)
class Units(ABC):
    """All units of a training set; a unit is known by its number."""

    of_row: list[list[int]]
    """The units of each row."""
    sides: np.ndarray
    """[U, S] int64: tokens of each unit's longest sequence; of a model that reads with one half and
    writes with the other, of both."""
    sequences: np.ndarray
    """[U] int64: sequences of each unit."""
    tokens: np.ndarray
    """[U] int64: tokens of all its sequences, padding apart."""
    cut: int
    """Rows that are longer than the student reads or writes."""

    @property
    def row_shapes(self) -> np.ndarray:
        """The sides of each row's units beside one another, [rows, columns]; 0 for none."""
        most = max(map(len, self.of_row))
        shapes = np.zeros((len(self.of_row), most, self.sides.shape[1]), dtype=np.int64)
        for row, units in enumerate(self.of_row):
            shapes[row, : len(units)] = self.sides[units]
        return shapes.reshape(len(self.of_row), -1)

    def of(self, rows: Sequence[int]) -> list[int]:
        """The units of some rows."""
        return [unit for row in rows for unit in self.of_row[row]]

    def padded(self, units: Sequence[int]) -> int:
        """Tokens that a model reads and writes for some units at once, with padding."""
        longest = self.sides[units].max(axis=0, initial=0)
        return int(longest.sum() * self.sequences[units].sum())

    @abstractmethod
    def coefficients(self, units: Sequence[int]) -> Tensor:
        """What each unit's loss is multiplied by, so that their sum is the loss of these units.

        Args:
            units: All units of a batch, over all workers, or of a whole set.

        Returns:
            [len(units)] float32.
        """

    @abstractmethod
    def losses(self, model: nn.Module, units: Sequence[int], device: torch.device) -> Losses:
        """Have a model read some units, and compare.

        Args:
            model: Of the family.
            units: At least one.
            device: The model's.
        """


def passes_of(
    batch: Sequence[int], units: Units, workers: int, at_once: int | None
) -> list[list[int]]:
    """The units of a batch pass by pass; each pass is one of all workers.

    A batch is one pass, or as many as `at_once` asks for. Where more than `MOST_PADDING` of it
    would be padding, as with short answers and long rationales in one batch, passes are cut in two,
    each time so that it saves most.

    Args:
        batch: Numbers of its units.
        units: Of the training set.
        workers: In all. Every pass but one gives each of them as many units as the others.
        at_once: Units that a worker has in a pass at most; any number if None.
    """
    passes = alike(batch, units.sides, at_once * workers) if at_once else [list(batch)]
    fed, real = sum(map(units.padded, passes)), int(units.tokens[batch].sum())
    if fed - real <= MOST_PADDING * fed:
        return passes
    cuts = [_best_cut(one, units, workers) for one in passes]
    while fed - real > MOST_PADDING * fed:
        number = max(range(len(cuts)), key=lambda one: cuts[one][0])
        saved, halves = cuts[number]
        if saved < LEAST_SAVING * fed:
            break
        fed -= saved
        passes[number : number + 1] = halves
        cuts[number : number + 1] = [_best_cut(half, units, workers) for half in halves]
    return passes


def _best_cut(one: list[int], units: Units, workers: int) -> tuple[int, list[list[int]]]:
    """The tokens that a pass has less when it is cut in two, and its halves; 0 if it has not."""
    numbers = np.array(one)
    best: tuple[int, list[list[int]]] = 0, []
    for side in units.sides[numbers].T:
        order = numbers[side.argsort(kind="stable")]
        below = _padded_up_to(order, units)
        above = _padded_up_to(order[::-1], units)[::-1]
        fed = below[workers - 1 : -1 : workers] + above[workers::workers]
        if len(fed) and (saved := int(below[-1] - fed.min())) > best[0]:
            place = workers * (int(fed.argmin()) + 1)
            best = saved, [order[:place].tolist(), order[place:].tolist()]
    return best


def _padded_up_to(order: np.ndarray, units: Units) -> np.ndarray:
    """`Units.padded` of the first unit, of the first two, and so on."""
    longest = np.maximum.accumulate(units.sides[order]).sum(axis=1)
    return np.asarray(longest * units.sequences[order].cumsum())


def deal(one: Sequence[int], units: Units, rank: int, workers: int) -> list[int]:
    """One worker's units of a pass.

    Of units in the order of their lengths every worker gets every so manieth, so that all have
    equal work and little padding. It may get none where a pass has fewer units than workers.

    Args:
        one: The units of the pass.
        units: Of the training set.
        rank: Of the worker.
        workers: In all.
    """
    numbers = np.array(one)
    order = units.sides[numbers].sum(axis=1).argsort(kind="stable")
    share: list[int] = numbers[order][rank::workers].tolist()
    return share


def padding_share(
    batches: Sequence[Sequence[int]], units: Units, workers: int, at_once: int | None
) -> float:
    """Share of the tokens fed to the workers that are padding.

    Args:
        batches: Rows of each.
        units: Of the training set.
        workers: In all.
        at_once: As in `passes_of`.
    """
    fed = real = 0
    for batch in batches:
        numbers = units.of(batch)
        real += int(units.tokens[numbers].sum())
        for one in passes_of(numbers, units, workers, at_once):
            fed += sum(units.padded(deal(one, units, rank, workers)) for rank in range(workers))
    return 1 - real / fed
