"""Rows that say the same: found by a 64-bit hash of their text, never by the texts themselves."""

from __future__ import annotations

import hashlib
import re

import numpy as np

AT_ONCE = 1 << 20
"""Keys that are looked up together: bounds what a look-up holds beside its input."""


def normal_form(text: str) -> str:
    """Text without case, punctuation and repeated blanks: equal forms are one question."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def text_key(text: str) -> int:
    """Hash a text's normal form into 64 bits.

    Ten million different texts share a key with a chance below 3e-6 (n^2 / 2^65).
    """
    digest = hashlib.blake2b(normal_form(text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def first_of_equal(keys: np.ndarray) -> np.ndarray:
    """The first row with the same key, for every row.

    Args:
        keys: uint64 [rows], at most 2^31 rows.

    Returns:
        int32 [rows]; a row that is the first of its key names itself.
    """
    first = np.arange(len(keys), dtype=np.int32)
    rows, begins = equal_runs(keys)
    first[rows] = rows[begins]
    return first


def equal_runs(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose key another row has too, with equal keys side by side.

    Beside the keys it holds 9 bytes a row, and about 30 for each row that it returns.

    Args:
        keys: uint64 [rows], at most 2^31 rows.

    Returns:
        rows: int32 [found], runs of equal keys, each in input order.
        begins: int64 [found], the place in `rows` where the run of each begins.
    """
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(repeated):
        return np.empty(0, np.int32), np.empty(0, np.int64)
    rows = np.concatenate(
        [
            start + np.flatnonzero(_among(keys[start : start + AT_ONCE], repeated))
            for start in range(0, len(keys), AT_ONCE)
        ]
    ).astype(np.int32)
    # Stable, so that rows of one key stay in input order.
    rows = rows[np.argsort(keys[rows], kind="stable")]
    found = keys[rows]
    is_first = np.concatenate(([True], found[1:] != found[:-1]))
    return rows, np.maximum.accumulate(np.where(is_first, np.arange(len(rows)), 0))


def _among(keys: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which keys stand in an ordered array that is not empty."""
    places = np.searchsorted(ordered, keys)
    places[places == len(ordered)] = 0
    found: np.ndarray = ordered[places] == keys
    return found
