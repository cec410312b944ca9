"""What the report's plots show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from core.ledger import Entry
from stillhouse.report import wording
from stillhouse.report.data import (
    Balance,
    Economics,
    Histogram,
    Quality,
    Score,
    Serving,
    StageCost,
    Training,
    Way,
)
from stillhouse.report.drawing import (
    BASELINE,
    FIRST,
    INK,
    MUTED,
    NARROW,
    SECOND,
    STUDENT,
    TEACHER,
    THIRD,
    WIDE,
    Figure,
    Line,
    Mark,
    Stack,
    alt_text,
    bars,
    count_axis,
    dots,
    end_labels,
    figure,
    milliseconds_axis,
    percent_axis,
    plain_axes,
    title,
)

SHADES = (FIRST, SECOND, THIRD)
"""Of the parts of stacked bars."""

ROLES = {"student": (STUDENT, "o"), "teacher": (TEACHER, "D"), "baseline": (BASELINE, "s")}
"""Colour and marker: a shape as well, for readers who cannot tell the colours apart."""


def headline(student: Quality, teacher: Quality) -> Figure | None:
    """The two accuracies of the first screen, one above the other, with intervals."""
    lines = [_accuracy(quality) for quality in (student, teacher)]
    # The page has names and figures beside it.
    bare = [Line("", line.marks) for line in lines]
    drawn = dots("headline", "", bare, percent_axis, (460, NARROW))
    return drawn and replace(drawn, alt=alt_text("Accuracy", lines))


def qualities(listed: Sequence[Quality]) -> Figure | None:
    """Accuracy of every measured setting with its interval."""
    return dots("quality", "Accuracy", [_accuracy(q) for q in listed], percent_axis)


def difficulty(listed: Sequence[Quality]) -> Figure | None:
    """Accuracy by the evaluation file's words for difficulty, a group of rows for each word."""
    lines = []
    for word in dict.fromkeys(word for q in listed for word in q.by_difficulty):
        lines.append(Line(f"{word.capitalize()} rows", [], heading=True))
        lines += [
            _scored(q.name, q.by_difficulty[word], q.role)
            for q in listed
            if word in q.by_difficulty
        ]
    return dots("difficulty", "Accuracy", lines, percent_axis)


def choices(student: Quality, teacher: Quality | None, names: Sequence[str]) -> Figure | None:
    """Accuracy by the right answer, student and teacher on one row."""
    lines = []
    for i, (name, score) in enumerate(zip(names, student.by_choice, strict=False)):
        line = _scored(name, score, "student")
        if teacher is not None and i < len(teacher.by_choice):
            other = _scored(name, teacher.by_choice[i], "teacher")
            above = [replace(mark, shift=-0.17) for mark in line.marks]
            below = [replace(mark, shift=0.17) for mark in other.marks]
            spoken = f"student {line.spoken or line.value}, teacher {other.spoken or other.value}"
            line = Line(name, below + above, f"{line.value} / {other.value}", spoken)
        lines.append(line)
    return dots("choices", "Accuracy, student / teacher", lines, percent_axis)


def balance(rows: Sequence[Balance], names: Sequence[str]) -> Figure | None:
    """How often each choice is intended, the teacher's first choice, and the final label."""
    lines = [
        Line(
            names[row.choice] if row.choice < len(names) else str(row.choice),
            [
                Mark(row.intended, BASELINE, "s", hollow=True),
                Mark(row.teacher, TEACHER, "D"),
                Mark(row.final, STUDENT, "o"),
            ],
            f"{row.intended:,} / {row.teacher:,} / {row.final:,}",
        )
        for row in rows
    ]
    label = "Rows: intended / teacher's first choice / final"
    return dots("balance", label, lines, count_axis)


def latency(servings: Sequence[Serving]) -> Figure | None:
    """Latency percentiles, from the middle one to the 99th."""
    lines = []
    for s in servings:
        if s.p50_ms is None or s.p90_ms is None or s.p99_ms is None:
            continue
        colour, marker = ROLES[s.role]
        middle = Mark(s.p50_ms, colour, marker, s.p50_ms, s.p99_ms)
        told = " / ".join(wording.number(p) for p in (s.p50_ms, s.p90_ms, s.p99_ms)) + " ms"
        lines.append(Line(s.name, [middle, Mark(s.p90_ms, colour, "|")], told))
    return dots("latency", "Milliseconds, p50 / p90 / p99", lines, milliseconds_axis)


def stages(costs: Sequence[StageCost]) -> Figure | None:
    """Device-seconds of every stage, split into useful, start-up and idle ones."""
    return device_seconds("stages", [(cost.entry.stage, cost.entry) for cost in costs])


def device_seconds(name: str, entries: Sequence[tuple[str, Entry]]) -> Figure | None:
    """Device-seconds of entries under their labels, split into useful, start-up and idle ones."""
    stacks = []
    for label, entry in entries:
        parts = zip(
            (entry.useful_seconds, entry.startup_seconds, entry.idle_seconds), SHADES, strict=True
        )
        stacks.append(Stack(label, list(parts), f"{wording.whole(entry.device_seconds)} s"))
    return bars(name, "Device-seconds", stacks)


def funnel(ways: Sequence[Way]) -> Figure | None:
    """Rows asked for, generated, scored and kept, stacked by the way of generating."""
    stacks = []
    asked = sum(way.asked for way in ways)
    for step in ("asked", "generated", "scored", "kept"):
        rows = [getattr(way, step) for way in ways]
        # Ways beyond the last shade share it, as the page's legend says.
        shades = [SHADES[min(i, len(SHADES) - 1)] for i in range(len(ways))]
        share = f", {100 * sum(rows) / asked:.0f}%" if asked and step != "asked" else ""
        parts = list(zip(rows, shades, strict=True))
        stacks.append(Stack(step.capitalize(), parts, f"{sum(rows):,}{share}"))
    return bars("funnel", "Rows", stacks)


def confidence(histogram: Histogram) -> Figure | None:
    """The teacher's probability for its first choice."""
    bars = _Bars(histogram, "Teacher's probability for its first choice", "Rows", decimals=2)
    total = sum(histogram.counts)
    return _histogram("confidence", f"Teacher's confidence over {total:,} scored rows", bars)


@dataclass(frozen=True)
class _Bars:
    """A histogram with its words."""

    histogram: Histogram
    label: str
    """Of the values."""
    counted: str
    """What the counts are of."""
    decimals: int
    """Of the edges, for those who hear the page."""


def _histogram(name: str, alt: str, bars: _Bars) -> Figure | None:
    histogram, decimals = bars.histogram, bars.decimals
    if not sum(histogram.counts):
        return None

    def draw(width: int) -> Canvas:
        canvas, axes = plain_axes(width, 210)
        widths = [0.88 * (right - left) for left, right in pairwise(histogram.edges)]
        lefts = histogram.edges[:-1]
        axes.bar(lefts, histogram.counts, width=widths, align="edge", color=TEACHER)
        axes.set_xlim(histogram.edges[0], histogram.edges[-1])
        axes.set_xlabel(bars.label)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=decimals < 2))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        title(canvas, bars.counted)
        return canvas

    told = "; ".join(
        f"{left:.{decimals}f} to {right:.{decimals}f}: {rows:,}"
        for (left, right), rows in zip(pairwise(histogram.edges), histogram.counts, strict=True)
        if rows
    )
    return figure(name, f"{alt}. {told}.", draw)


def training(run: Training, number: int) -> Figure | None:
    """Loss by epoch on the training rows and on the held-out ones."""
    curves = [
        ("training", MUTED, "--", [(e.number, e.train_loss) for e in run.epochs]),
        ("validation", STUDENT, "-", [(e.number, e.validation_loss) for e in run.epochs]),
    ]
    known = [
        (name, colour, dash, [(x, y) for x, y in points if y is not None and math.isfinite(y)])
        for name, colour, dash, points in curves
    ]
    if not any(points for *_, points in known):
        return None

    def draw(width: int) -> Canvas:
        canvas, axes = plain_axes(width, 230, right=92)
        labels = []
        for name, colour, dash, points in known:
            if not points:
                continue
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, dash, color=colour, linewidth=2, marker="o", markersize=4)
            labels.append((ys[-1], name, colour))
            if name == "validation" and run.chosen in xs:
                height = ys[xs.index(run.chosen)]
                axes.plot([run.chosen], [height], "o", color=colour, markersize=9)
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(8 if width == WIDE else 5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.03, y=0.12)
        axes.grid(axis="y")
        end_labels(axes, labels)
        title(canvas, "Loss")
        return canvas

    told = " ".join(
        f"Epoch {e.number}: training {wording.number(e.train_loss)}, "
        f"validation {wording.number(e.validation_loss)}."
        for e in run.epochs
    )
    return figure(f"training{number}", f"Loss by epoch. {told}", draw)


def break_even(money: Economics) -> Figure | None:
    """Money spent by requests served: on the teacher, and on making and serving the student."""
    making, teacher = money.making, money.teacher_per_thousand
    student, crossing = money.student_per_thousand, money.break_even_requests
    if making is None or teacher is None or student is None or crossing is None:
        return None
    crosses = math.isfinite(crossing) and crossing > 0
    span = 2 * crossing if crosses else 30.0 * money.requests_per_day
    units = ((1e9, ", billions"), (1e6, ", millions"), (1.0, ""))
    unit, name = next(pair for pair in units if span >= 2 * pair[0] or pair[0] == 1)

    def draw(width: int) -> Canvas:
        canvas, axes = plain_axes(width, 300, left=64, right=84)
        ends = (teacher * span / 1000, making + student * span / 1000)
        axes.plot([0, span], [0, ends[0]], color=TEACHER, linewidth=2)
        axes.plot([0, span], [making, ends[1]], color=STUDENT, linewidth=2)
        if crosses:
            height = teacher * crossing / 1000
            axes.plot([crossing, crossing], [0, height], color=MUTED, linewidth=1, linestyle=":")
            axes.plot([crossing], [height], "o", color=INK, markersize=7)
            axes.annotate(
                f"{wording.requests(crossing)}\nrequests",
                (crossing, height),
                (9, -9),  # below both lines, as both climb
                textcoords="offset points",
                va="top",
                fontweight="bold",
            )
        axes.set_xlim(0, span)
        axes.set_ylim(0, 1.08 * max(*ends, 1e-12))
        axes.xaxis.set_major_locator(MaxNLocator(5 if width == WIDE else 3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / unit:,.10g}"))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda y, _: wording.money(y, money.currency, 2) if y else "0")
        )
        axes.set_xlabel(f"Requests served{name}")
        axes.grid(axis="y")
        end_labels(axes, [(ends[0], "teacher", TEACHER), (ends[1], "student", STUDENT)])
        title(canvas, "Money spent in all")
        return canvas

    told = (
        f"The lines cross at {wording.requests(crossing)} requests."
        if crosses
        else "The lines do not cross."
    )
    cost = wording.money(making, money.currency)
    alt = f"Money spent by requests served; the student's line starts at {cost}. {told}"
    return figure("break-even", alt, draw)


def _accuracy(quality: Quality) -> Line:
    return _scored(quality.name, quality.score, quality.role)


def _scored(label: str, score: Score, role: str) -> Line:
    """A row with a score and its interval; without a mark where nothing was counted."""
    if score.share is None:
        return Line(label, [], wording.UNKNOWN)
    value = wording.percent(score.share)
    spoken = f"{value} (95% interval {wording.between(score.low, score.high)})"
    return Line(label, [Mark(score.share, *ROLES[role], score.low, score.high)], value, spoken)
