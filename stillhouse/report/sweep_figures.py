"""The plots of a sweep: what each swept key has to do with the metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from stillhouse.report.data import Sweep, SweepTrial
from stillhouse.report.drawing import (
    BASELINE,
    INK,
    NARROW,
    PAPER,
    STUDENT,
    Figure,
    figure,
    plain_axes,
    title,
)
from stillhouse.report.sweep import METRICS, STATES, score_in_words, short_keys, value_in_words

MOST_KEYS = 8
"""Swept keys that are drawn."""

FEW = 5
"""Different numbers up to which each has its tick."""

WIDTHS = (372, NARROW)
"""Two stand beside each other on a desk's screen."""


def by_key(sweep: Sweep) -> list[Figure]:
    """For each key, the metric of every trial by the value that it had."""
    told = [trial for trial in sweep.trials if trial.score is not None]
    names = short_keys(sweep.keys)
    return [
        _key(sweep, number, names[number], told)
        for number in range(len(sweep.keys[:MOST_KEYS]))
        if told
    ]


def _key(sweep: Sweep, number: int, name: str, trials: Sequence[SweepTrial]) -> Figure:
    values = [trial.values[number] for trial in trials]
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    words = list(dict.fromkeys(map(value_in_words, values)))

    def at(trial: SweepTrial) -> float:
        value = trial.values[number]
        return float(value) if plain else words.index(value_in_words(value))

    def draw(width: int) -> Canvas:
        canvas, axes = plain_axes(width, 220)
        if sweep.keys[number] in sweep.logarithmic:
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.xaxis.set_major_locator(LogLocator(numticks=4))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        elif plain and len(words) <= FEW:
            axes.set_xticks(sorted({at(trial) for trial in trials}))
        elif plain:
            whole = all(isinstance(value, int) for value in values)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=whole))
        else:
            axes.set_xticks(range(len(words)), [word[:12] for word in words])
        for trial in trials:
            _mark(axes, at(trial), trial, best=trial.number == sweep.best)
        axes.margins(x=0.08, y=0.14)
        axes.set_xlabel(name)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if sweep.metric == "validation_accuracy":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}%"))
        axes.grid(axis="y")
        title(canvas, METRICS[sweep.metric].capitalize())
        return canvas

    told = " ".join(
        f"Trial {trial.number}, {value_in_words(trial.values[number])}: "
        f"{score_in_words(trial.score, sweep.metric)}, {STATES[trial.state]}."
        for trial in trials
    )
    return figure(f"sweep{number}", f"{METRICS[sweep.metric]} by {name}. {told}", draw, WIDTHS)


def _mark(axes: Any, x: float, trial: SweepTrial, *, best: bool) -> None:
    ended = trial.state == "finished"
    axes.plot(
        [x],
        [trial.score],
        linestyle="none",
        marker="o" if ended else "s",
        markersize=12 if best else 8,
        markerfacecolor=STUDENT if ended else PAPER,
        markeredgecolor=INK if best else STUDENT if ended else BASELINE,
        markeredgewidth=2,
        clip_on=False,
    )
