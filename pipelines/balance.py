"""Label balance: which rows to drop so that no label has many times the rows of another."""

from __future__ import annotations

import hashlib

import numpy as np


def balance_key(row_id: str, seed: int) -> int:
    """A number of 64 bits that decides by itself who must go: no row's fate hangs on the order."""
    digest = hashlib.blake2b(row_id.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little")


def surplus(labels: np.ndarray, keys: np.ndarray, max_ratio: float) -> np.ndarray:
    """Rows to drop so that no label has more than `max_ratio` times the rows of the smallest.

    Of a label with too many rows, those with the smallest keys stay. A label without any row is
    not counted: nothing could be balanced against it. Holds about 20 bytes for each row of the
    label at work.

    Args:
        labels: int [rows], from 0.
        keys: uint64 [rows], from `balance_key`.
        max_ratio: 1 at least.

    Returns:
        bool [rows], true for a row to drop.
    """
    dropped = np.zeros(len(labels), dtype=bool)
    counts = np.bincount(labels)
    most = int(max_ratio * counts[counts > 0].min(initial=len(labels)))
    for label in np.flatnonzero(counts > most):
        rows = np.flatnonzero(labels == label)
        dropped[rows[np.argsort(keys[rows], kind="stable")[most:]]] = True
    return dropped
