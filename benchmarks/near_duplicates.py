"""Near-duplicate removal on synthetic rows with planted copies: speed, memory, what it finds.

    python benchmarks/near_duplicates.py                  100,000 rows, then 1,000,000
    python benchmarks/near_duplicates.py --rows 20000     another size

Rows are headline-like: 8 to 30 words from a vocabulary of 30,000 made-up words, drawn with Zipf
frequencies, so that common words make unrelated rows a little alike. One row in ten is planted: a
copy of an earlier original row with one change (a letter replaced, a word dropped, or two
neighbouring words swapped), kept only where the exact Jaccard similarity of the shingles is at
least 0.05 above the threshold; nearer to it, finding a pair is the estimate's toss.

Prints and writes to benchmarks/results, for every size: rows a second, the peak of the process's
resident memory above what it held before, recall (planted copies that are dropped) and precision
(dropped rows that are planted, or whose cluster's first row has an exact similarity of at least the
threshold less 0.1, two and a half standard errors of the estimate). Each size runs in a process of
its own. Exits 1 where the largest takes more than `MEMORY_BAR`, or a recall is under `RECALL_BAR`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.near_duplicates import NearDuplicates, shingles

ROOT = Path(__file__).parents[1]
THRESHOLD = 0.8
BATCH_ROWS = 10_000
PLANTED = 0.1
MEMORY_BAR = 200 * 2**20
"""Bytes above what the process held before, at the largest size."""
RECALL_BAR = 0.95


def jaccard(left: str, right: str) -> float:
    """Exact similarity of two texts' shingles."""
    one, other = set(shingles(left)), set(shingles(right))
    return len(one & other) / len(one | other)


class Rows:
    """Makes rows batch by batch, and remembers which are planted; equal seeds make equal rows."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        chance = np.random.default_rng(1)
        letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
        lengths = chance.integers(2, 11, 30_000)
        self._words = ["".join(chance.choice(letters[:20], length)) for length in lengths]
        weights = 1 / np.arange(10, 30_010)
        self._weights = np.cumsum(weights / weights.sum())
        self.planted = np.zeros(rows, dtype=bool)

    def batches(self) -> Iterator[list[str]]:
        """All rows; a planted one copies an original of its own batch or of the one before."""
        chance = np.random.default_rng(0)
        originals: list[str] = []
        for begin in range(0, self._rows, BATCH_ROWS):
            texts: list[str] = []
            before, originals = originals, []
            for number in range(begin, min(begin + BATCH_ROWS, self._rows)):
                copy = None
                if chance.random() < PLANTED and originals:
                    source = (before or originals) if chance.random() < 0.5 else originals
                    copy = self._copy(source[chance.integers(len(source))], chance)
                if copy is None:
                    originals.append(self._original(chance))
                self.planted[number] = copy is not None
                texts.append(copy or originals[-1])
            yield texts

    def _original(self, chance: np.random.Generator) -> str:
        drawn = np.searchsorted(self._weights, chance.random(chance.integers(8, 31)))
        return " ".join(self._words[min(word, 29_999)] for word in drawn)

    def _copy(self, text: str, chance: np.random.Generator) -> str | None:
        words = text.split()
        place = int(chance.integers(len(words) - 1))
        kind = chance.integers(3)
        if kind == 0:
            words[place] = words[place][:-1] + "z"
        elif kind == 1:
            del words[place]
        else:
            words[place : place + 2] = words[place + 1], words[place]
        copy = " ".join(words)
        return copy if THRESHOLD + 0.05 <= jaccard(text, copy) < 1 else None


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """The figures of one size."""
    made = Rows(rows)
    search = NearDuplicates(folder / "near", THRESHOLD)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signing = 0.0
    for texts in made.batches():
        began = time.perf_counter()
        search.add(texts)
        signing += time.perf_counter() - began
    began = time.perf_counter()
    first = search.firsts()
    clustering = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dropped = first != np.arange(rows)
    return {
        "rows": rows,
        "planted": int(made.planted.sum()),
        "dropped": int(dropped.sum()),
        "rows_per_second": rows / (signing + clustering),
        "signing_seconds": signing,
        "clustering_seconds": clustering,
        "memory_bytes": (peak - before) * 1024,
        "disk_bytes": sum(file.stat().st_size for file in (folder / "near").iterdir()),
        "recall": float(dropped[made.planted].mean()),
        "precision": _precision(rows, first, dropped & ~made.planted, int(dropped.sum())),
    }


def _precision(rows: int, first: np.ndarray, unplanted: np.ndarray, dropped: int) -> float:
    """Share of the dropped rows that are right; makes the rows again to look at the unplanted."""
    looked_at = np.unique(np.concatenate((np.flatnonzero(unplanted), first[unplanted])))
    wanted, texts, begin = set(looked_at.tolist()), {}, 0
    for batch in Rows(rows).batches():
        texts.update({begin + n: one for n, one in enumerate(batch) if begin + n in wanted})
        begin += len(batch)
    wrong = sum(
        jaccard(texts[int(number)], texts[int(first[number])]) < THRESHOLD - 0.1
        for number in np.flatnonzero(unplanted)
    )
    return 1 - wrong / dropped


def main() -> int:
    """Measure every size, print and write the figures; 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where signatures go (0.7 kB a row)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(json.dumps(measure(options.rows[0], Path(folder))))
        return 0
    sizes = []
    for rows in options.rows:
        command = [sys.executable, __file__, "--one", "--rows", str(rows)]
        if options.folder is not None:
            command += ["--folder", str(options.folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        sizes.append(found)
        print(
            f"{rows:,} rows: {found['rows_per_second']:,.0f} rows/s, "
            f"{found['memory_bytes'] / 2**20:.0f} MiB, recall {found['recall']:.4f}, "
            f"precision {found['precision']:.4f}",
            flush=True,
        )
    held = {
        "memory": sizes[-1]["memory_bytes"] <= MEMORY_BAR,
        "recall": all(size["recall"] >= RECALL_BAR for size in sizes),
    }
    for name, holds in held.items():
        print(f"bar {name}: {'holds' if holds else 'MISSED'}")
    results = ROOT / "benchmarks" / "results" / "near_duplicates.json"
    content = {"threshold": THRESHOLD, "sizes": sizes, "bars": held}
    results.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
