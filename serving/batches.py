"""Token budgets: which token sequences share a forward pass, and what padding costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tokens:
    """One input of an encoder."""

    ids: list[int]
    type_ids: list[int]
    """0 for the first text and 1 for the second, where the model tells them apart."""

    def __len__(self) -> int:
        return len(self.ids)


Piece = list[Tokens]
"""Sequences of one request that go through the model together."""

Batch = dict[str, np.ndarray]
"""What a model reads, by the name of its input: each [B, L] int64."""


@dataclass(frozen=True)
class Budget:
    """What one forward pass may hold."""

    sequences: int
    tokens: int
    """With padding: the longest sequence times their number."""

    def fits(self, number: int, longest: int) -> bool:
        """Whether so many sequences, padded to the longest, are within the budget."""
        return number <= self.sequences and number * longest <= self.tokens

    def used(self, pieces: Sequence[Piece]) -> int:
        """What pieces take of the budget together, in tokens.

        A sequence takes its share of `sequences` at least, so that one number tells of both.
        """
        number = sum(map(len, pieces))
        longest = max(len(one) for piece in pieces for one in piece)
        by_number = -(-number * self.tokens // self.sequences)
        return max(number * longest, by_number)


def cut(sequences: Sequence[Tokens], budget: Budget) -> list[list[int]]:
    """Divide a request's sequences into pieces within the budget, like beside like.

    Returns:
        The numbers of each piece's sequences. A sequence that is longer than the budget is a piece
        of its own.
    """
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
    pieces: list[list[int]] = []
    for number in order:  # from short to long: this one is the longest of its piece
        if pieces and budget.fits(len(pieces[-1]) + 1, len(sequences[number])):
            pieces[-1].append(number)
        else:
            pieces.append([number])
    return pieces


def padded(sequences: Sequence[Tokens], pad: int) -> Batch:
    """Sequences as a model's inputs.

    Args:
        sequences: B of them, the longest of length L.
        pad: The token that fills up.

    Returns:
        `input_ids`, `attention_mask` and `token_type_ids`, each [B, L] int64.
    """
    shape = (len(sequences), max(map(len, sequences)))
    ids = np.full(shape, pad, np.int64)
    mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, one in enumerate(sequences):
        ids[row, : len(one)] = one.ids
        mask[row, : len(one)] = 1
        types[row, : len(one)] = one.type_ids
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
