"""Rows that say nearly the same: MinHash (Broder 1997) and banded locality-sensitive hashing.

A text is the set of its character 4-grams, in normal form. Items are short, 5 to 40 words: one
changed word of ten leaves a similarity of 0.77 by character 4-grams and of 0.55 by word 3-grams (on
average over the demonstration's headlines), and a typo or another ending touches four 4-grams and
no more. Nor do they need blanks between words, which not all scripts write.

`rensa` gives each text a signature of `SLOTS` minima; two texts agree in a slot with the
probability of their Jaccard similarity. Signatures are cut into bands. Texts that agree in a whole
band are candidates, and are joined where their signatures agree in at least the wanted share of
slots. What is joined, directly or through others, is one cluster (single linkage), and its first
row in input order stands for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rensa import RMinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipelines.duplicates import equal_runs, normal_form

SHINGLE = 4
"""Characters of a shingle."""

SLOTS = 128
"""Minima of a signature; the estimate's standard error is sqrt(J (1 - J) / SLOTS), at most 0.04."""

RECALL = 0.99
"""Probability that two texts exactly at the threshold agree in a band, at least."""

NEIGHBOURS = 16
"""Rows before it, in its bucket, that a row is compared with, beside the bucket's first: a bucket
of n rows costs at most 17 n comparisons and never n^2."""

SIGNED_AT_ONCE = 1000
"""Texts whose shingles are in memory together: about 10 MB."""

PAIRS_AT_ONCE = 4096
"""Pairs whose signatures are in memory together: about 10 MB."""

SEED = 0
"""Of the hash functions: equal rows give equal clusters on every machine."""


class NearDuplicates:
    """Takes texts batch by batch, and then tells which are nearly the same.

    Texts are not kept. On disk, a row takes 4 x `SLOTS` bytes of signature and 8 for each band, in
    all about 700 bytes at a threshold of 0.8. In memory, a row takes 21 bytes while a band is
    sorted, and about 60 more if it shares that band's bucket with another row.
    """

    def __init__(self, folder: Path, threshold: float) -> None:
        """Begin without rows.

        Args:
            folder: For the files of the search; it must not be there yet, and is the caller's to
                delete.
            threshold: Estimated Jaccard similarity from which two texts are nearly the same, from
                0.5 to 1.
        """
        folder.mkdir()
        self._folder = folder
        self._threshold = threshold
        self._width = band_width(threshold)
        self._rows = 0

    def add(self, texts: Sequence[str]) -> None:
        """Sign the next texts, in input order."""
        for start in range(0, len(texts), SIGNED_AT_ONCE):
            sets = [shingles(text) for text in texts[start : start + SIGNED_AT_ONCE]]
            signatures = np.array(
                RMinHash.digests_from_token_sets(sets, SLOTS, SEED), dtype=np.uint32
            )
            with self._signatures.open("ab") as stream:
                signatures.tofile(stream)
            for band, columns in enumerate(self._bands()):
                with self._keys(band).open("ab") as stream:
                    _mixed(signatures[:, columns]).tofile(stream)
            self._rows += len(sets)

    def firsts(self) -> np.ndarray:
        """The first row of its cluster, for every row.

        Returns:
            int32 [rows]; a row that has no near-duplicate before it names itself.
        """
        first = np.arange(self._rows, dtype=np.int32)
        if not self._rows:
            return first
        for band, _ in enumerate(self._bands()):
            rows, begins = equal_runs(np.fromfile(self._keys(band), dtype=np.uint64))
            for left, right in _candidates(rows, begins):
                apart = first[left] != first[right]
                self._join(first, left[apart], right[apart])
        return first

    @property
    def _signatures(self) -> Path:
        return self._folder / "signatures"

    def _keys(self, band: int) -> Path:
        return self._folder / f"band-{band}"

    def _bands(self) -> list[slice]:
        # The first is the whole signature: equal texts are alone in its buckets, so they are always
        # found, however many other texts crowd the buckets of the rest.
        begins = range(0, SLOTS - self._width + 1, self._width)
        return [slice(0, SLOTS), *(slice(begin, begin + self._width) for begin in begins)]

    def _join(self, first: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
        """Join the clusters of those pairs that are similar enough; changes `first`."""
        similar = np.zeros(len(left), dtype=bool)
        for start in range(0, len(left), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            rows, places = np.unique(np.concatenate((left[part], right[part])), return_inverse=True)
            one, other = np.split(self._read(rows)[places], 2)
            similar[part] = np.count_nonzero(one == other, axis=1) >= self._threshold * SLOTS
        if similar.any():
            _merge(first, first[left[similar]], first[right[similar]])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Signatures of some rows, uint32 [rows, `SLOTS`].

        Read one by one: of a mapped file, rows here and there bring nearly all of it into memory.
        """
        signatures = np.empty((len(rows), SLOTS), dtype=np.uint32)
        with self._signatures.open("rb") as stream:
            for row, signature in zip(rows.tolist(), signatures, strict=True):
                os.preadv(stream.fileno(), [signature.data], row * signature.nbytes)
        return signatures


def shingles(text: str) -> list[str]:
    """The character 4-grams of a text's normal form; a shorter text is one shingle by itself."""
    form = normal_form(text)
    return [form[place : place + SHINGLE] for place in range(max(1, len(form) - SHINGLE + 1))]


def band_width(threshold: float) -> int:
    """Slots of a band: as many as still find a pair at the threshold with probability `RECALL`.

    With similarity s, width r and b = `SLOTS` // r bands, a pair shares a band with probability
    1 - (1 - s^r)^b (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4.2). Wider bands
    bring fewer candidates that fail.
    """
    return max(
        width
        for width in range(1, SLOTS + 1)
        if 1 - (1 - threshold**width) ** (SLOTS // width) >= RECALL
    )


def _mixed(columns: np.ndarray) -> np.ndarray:
    """Hash the rows of uint32 [rows, width] into uint64 [rows]: multiply and shift, by column."""
    keys = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(32)
    return keys


def _candidates(rows: np.ndarray, begins: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs within buckets: each row with its bucket's first, then with its neighbours before it.

    Lazy, so that a pair which earlier pairs have joined need not be compared.
    """
    yield rows, rows[begins]
    places = np.arange(len(rows))
    for distance in range(1, NEIGHBOURS + 1):
        inside = np.flatnonzero(places - distance > begins)
        if not len(inside):
            return
        yield rows[inside], rows[inside - distance]


def _merge(first: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Make one cluster of each two, given by their first rows; changes `first`.

    Every row names its cluster's first row before and after.
    """
    nodes, places = np.unique(np.concatenate((left, right)), return_inverse=True)
    ends = (places[: len(left)], places[len(left) :])
    graph = coo_array((np.ones(len(left), bool), ends), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=False)
    # `nodes` is ordered: where a component occurs first stands its smallest row.
    _, smallest = np.unique(component, return_index=True)
    first[nodes] = nodes[smallest][component]
    first[:] = first[first]
