"""95% intervals of differences that both rows and seeds decide, by resampling.

The rows are some of many that could have been asked, and the seeds some of many that could have
been trained with. Both are drawn again with replacement, independently of each other: the
pigeonhole bootstrap (Owen, Annals of Applied Statistics 1(2), 2007, arXiv 0712.1111). No dependency
of Stillhouse has it. Where seeds differ little it is somewhat too wide; a few seeds that differ
much make it too narrow, as they tell little of how others would.
"""

from __future__ import annotations

import numpy as np

from stillhouse.report.intervals import Interval

RESAMPLES = 10_000


def mean_interval(values: np.ndarray) -> Interval:
    """95% percentile interval of the mean of a table.

    Args:
        values: [seeds, rows], such as 1 where one of two models alone is right and -1 where the
            other is. With one seed, rows alone are drawn.
    """
    seeds, rows = values.shape
    random = np.random.default_rng(0)
    # Many rows are alike: drawing rows is drawing how often each kind of column comes.
    kinds, counts = np.unique(values, axis=1, return_counts=True)
    of_kinds = random.multinomial(rows, counts / rows, size=RESAMPLES) / rows
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    means = ((of_seeds @ kinds) * of_kinds).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
