"""The plot of an ablation: how far each variant is from the recipe as it is."""

from __future__ import annotations

from typing import Any

from matplotlib.ticker import FuncFormatter, MaxNLocator

from stillhouse.report.ablation import gap_in_words, interval_in_words
from stillhouse.report.data import Ablations
from stillhouse.report.drawing import INK, STUDENT, Figure, Line, Mark, dots
from stillhouse.report.wording import signed_points


def differences(found: Ablations) -> Figure | None:
    """The difference of each variant with its interval; None where none is known yet."""
    lines = [
        Line(
            variant.name,
            [Mark(variant.gap.mean, STUDENT, "o", variant.gap.low, variant.gap.high)],
            gap_in_words(variant.gap),
            f"{gap_in_words(variant.gap)} points (95% interval {interval_in_words(variant.gap)})",
        )
        for variant in found.variants
        if variant.gap is not None
    ]
    return dots("ablations", "Points above or below the recipe as it is", lines, _points_axis)


def _points_axis(axes: Any, values: list[float]) -> None:
    """Differences of shares, with the place where there is none."""
    low, high = min(*values, 0.0), max(*values, 0.0)
    margin = 0.06 * max(high - low, 0.01)
    axes.set_xlim(low - margin, high + margin)
    axes.axvline(0, color=INK, linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: signed_points(x).removesuffix(".0")))
