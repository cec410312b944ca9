"""What a family makes of the training rows, and how a batch of them is dealt to workers.

A row becomes one or more units. A unit is what has a loss of its own and cannot be divided: a
question with all its choices, or a prompt with what is to be written behind it. An epoch goes
through rows; what is padded, dealt and held in memory are units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


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
    lengths: list[int]
    """Tokens of each unit's longest sequence."""
    sequences: list[int]
    """Sequences of each unit."""
    tokens: list[int]
    """Tokens of all its sequences, padding apart."""
    cut: int
    """Rows that are longer than the student reads or writes."""

    @property
    def row_lengths(self) -> list[int]:
        """Tokens of each row's longest sequence."""
        return [max((self.lengths[unit] for unit in units), default=0) for units in self.of_row]

    def of(self, rows: Sequence[int]) -> list[int]:
        """The units of some rows."""
        return [unit for row in rows for unit in self.of_row[row]]

    def padded(self, units: Sequence[int]) -> int:
        """Tokens that a model reads and writes for some units at once, with padding."""
        longest = max((self.lengths[unit] for unit in units), default=0)
        return longest * sum(self.sequences[unit] for unit in units)

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


def deal(
    units: Sequence[int], lengths: Sequence[int], rank: int, workers: int, at_once: int | None
) -> list[list[int]]:
    """One worker's units of a batch, pass by pass.

    Of units in the order of their lengths every worker gets every so manieth, so that all have
    equal work and little padding. All workers get the same number of passes, because each pass is
    one of all of them; a pass may be empty where a batch has fewer units than that takes.

    Args:
        units: Of the whole batch.
        lengths: Tokens, by unit.
        rank: Of the worker.
        workers: In all.
        at_once: Units of a pass at most; all in one if None.
    """
    mine = sorted(units, key=lambda unit: (lengths[unit], unit))[rank::workers]
    most = -(-len(units) // workers)
    size = min(at_once or most, most)
    return [mine[begin : begin + size] for begin in range(0, most, size)]


def padding_share(
    batches: Sequence[Sequence[int]], units: Units, workers: int, at_once: int | None
) -> float:
    """Share of the tokens fed to the workers that are padding.

    Args:
        batches: Rows of each.
        units: Of the training set.
        workers: In all.
        at_once: As in `deal`.
    """
    fed = real = 0
    for batch in batches:
        numbers = units.of(batch)
        real += sum(units.tokens[unit] for unit in numbers)
        for rank in range(workers):
            passes = deal(numbers, units.lengths, rank, workers, at_once)
            fed += sum(map(units.padded, passes))
    return 1 - real / fed
