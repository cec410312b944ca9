"""95% intervals of proportions, and of the difference of two of them.

The formulas are the score interval of Wilson (Journal of the American Statistical Association 22,
1927) and the two "method 10" intervals that Newcombe built from it (Statistics in Medicine 17,
1998: pages 873 for two groups, 2635 for pairs). No dependency of Stillhouse has them, and unlike
the usual normal interval they stay inside 0 and 1 and hold at 0 and at 100%.
"""

from __future__ import annotations

import math
from statistics import NormalDist

Interval = tuple[float, float]

Z = NormalDist().inv_cdf(0.975)
"""Standard normal quantile of a two-sided 95% interval."""


def wilson(correct: int, total: int) -> Interval | None:
    """95% interval of the share `correct / total`; None where nothing was counted."""
    if total == 0:
        return None
    share = correct / total
    spread = Z * Z / total
    centre = share + spread / 2
    reach = Z * math.sqrt((share * (1 - share) + spread / 4) / total)
    low, high = (centre - reach) / (1 + spread), (centre + reach) / (1 + spread)
    # At the ends the formula gives 0 and 1 but for rounding.
    return (0.0 if correct == 0 else low, 1.0 if correct == total else high)


def difference(first: tuple[int, int], second: tuple[int, int]) -> Interval | None:
    """95% interval of `first - second`, two shares of different rows, each (correct, total)."""
    return _combine(first, second, correlation=0.0)


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int
) -> Interval | None:
    """95% interval of the difference of two shares of the same rows.

    Narrower than `difference`, as what two models get wrong together says nothing about which is
    better.

    Args:
        both: Rows that both got right.
        only_first: Rows that only the first got right.
        only_second: Rows that only the second got right.
        neither: Rows that both got wrong.
    """
    total = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    margins = first * (total - first) * second * (total - second)
    product = float(both * neither - only_first * only_second)
    if product > 0:  # Newcombe's continuity correction, towards no correlation
        product = max(product - total / 2, 0)
    correlation = product / math.sqrt(margins) if margins else 0.0
    return _combine((first, total), (second, total), correlation)


def _combine(
    first: tuple[int, int], second: tuple[int, int], correlation: float
) -> Interval | None:
    a, b = wilson(*first), wilson(*second)
    if a is None or b is None:
        return None
    share_a, share_b = first[0] / first[1], second[0] / second[1]
    down, up = (share_a - a[0], b[1] - share_b), (a[1] - share_a, share_b - b[0])

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * correlation * x * y + y * y, 0.0))

    return share_a - share_b - reach(*down), share_a - share_b + reach(*up)
