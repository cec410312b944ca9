"""The report's plots: matplotlib in, SVG for the page out.

Every plot is drawn twice, for a desk's screen and for a phone's, because an SVG that is scaled
down to a phone has letters nobody can read; the style sheet shows one of the two. Texts stay texts
in the page's own font, and the colours below become CSS variables, so that a plot follows the page
from light to dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

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
from stillhouse.report.text import clean

WIDE, NARROW = 768, 340
"""Widths of the two drawings in CSS pixels."""

LETTER, MOST_LETTERS = 7.2, 26
"""Width of an average letter of a label in pixels, and letters of a label at most."""

MOST_ROWS = 24
"""Rows of one plot; the tables below the plots hold the rest."""

INK, MUTED, RULE, PAPER = "#010101", "#010102", "#010103", "#010104"
STUDENT, TEACHER, BASELINE = "#010105", "#010106", "#010107"
FIRST, SECOND, THIRD = "#010108", "#010109", "#01010a"
COLOURS = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    STUDENT: "student",
    TEACHER: "teacher",
    BASELINE: "baseline",
    FIRST: "first",
    SECOND: "second",
    THIRD: "third",
}
"""Stand-ins that no real plot would use, by the CSS variable that takes their place."""

SHADES = (FIRST, SECOND, THIRD)
"""Of the parts of stacked bars."""

ROLES = {"student": (STUDENT, "o"), "teacher": (TEACHER, "D"), "baseline": (BASELINE, "s")}
"""Colour and marker: a shape as well, for readers who cannot tell the colours apart."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stillhouse",
    "font.family": "DejaVu Sans",  # comes with matplotlib: every machine lays out alike
    "font.size": 13,
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": RULE,
    "grid.linewidth": 1,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
}


@dataclass(frozen=True)
class Figure:
    """A plot for the page."""

    name: str
    alt: str
    """The same in words, for those who hear the page."""
    wide: str
    """SVG element."""
    narrow: str


@dataclass(frozen=True)
class Mark:
    """A point on a row, with its interval or without."""

    value: float
    colour: str
    marker: str
    low: float | None = None
    high: float | None = None
    hollow: bool = False
    shift: float = 0.0
    """Below the row's middle, in rows: two intervals on one row must not hide each other."""


@dataclass(frozen=True)
class Line:
    """A row of a plot: its label at the left, its value in words at the right."""

    label: str
    marks: list[Mark]
    value: str = ""
    heading: bool = False
    """Names the rows that follow."""


# What the page shows -----------------------------------------------------------------------------


def headline(student: Quality, teacher: Quality) -> Figure | None:
    """The two accuracies of the first screen, one above the other, with intervals."""
    # The page has names and figures beside it.
    lines = [Line("", _scored(q.score, q.role)[0]) for q in (student, teacher)]
    figure = _dots("headline", "", lines, _percent_axis, (460, NARROW))
    told = [(q.name, _with_interval(_accuracy(q))) for q in (student, teacher)]
    return figure and replace(figure, alt=_alt("Accuracy", told))


def qualities(listed: Sequence[Quality]) -> Figure | None:
    """Accuracy of every measured setting with its interval."""
    return _dots("quality", "Accuracy", [_accuracy(q) for q in listed], _percent_axis)


def difficulty(listed: Sequence[Quality]) -> Figure | None:
    """Accuracy by the evaluation file's words for difficulty, a group of rows for each word."""
    lines = []
    for word in dict.fromkeys(word for q in listed for word in q.by_difficulty):
        lines.append(Line(f"{word.capitalize()} rows", [], heading=True))
        lines += [
            Line(q.name, *_scored(q.by_difficulty[word], q.role))
            for q in listed
            if word in q.by_difficulty
        ]
    return _dots("difficulty", "Accuracy", lines, _percent_axis)


def choices(student: Quality, teacher: Quality | None, names: Sequence[str]) -> Figure | None:
    """Accuracy by the right answer, student and teacher on one row."""
    lines = []
    for i, (name, score) in enumerate(zip(names, student.by_choice, strict=False)):
        marks, value = _scored(score, "student")
        if teacher is not None and i < len(teacher.by_choice):
            other = teacher.by_choice[i]
            below = [replace(mark, shift=0.17) for mark in _scored(other, "teacher")[0]]
            marks = below + [replace(mark, shift=-0.17) for mark in marks]
            value += f" / {wording.percent(other.share)}"
        lines.append(Line(name, marks, value))
    return _dots("choices", "Accuracy, student / teacher", lines, _percent_axis)


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
    return _dots("balance", label, lines, _count_axis)


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
    return _dots("latency", "Milliseconds, p50 / p90 / p99", lines, _milliseconds_axis)


def stages(costs: Sequence[StageCost]) -> Figure | None:
    """Device-seconds of every stage, split into useful, start-up and idle ones."""
    lines = [
        (
            f"{cost.entry.stage}",
            [
                (cost.entry.useful_seconds, FIRST),
                (cost.entry.startup_seconds, SECOND),
                (cost.entry.idle_seconds, THIRD),
            ],
            f"{wording.whole(cost.entry.device_seconds)} s",
        )
        for cost in costs
    ]
    return _bars("stages", "Device-seconds", lines)


def funnel(ways: Sequence[Way]) -> Figure | None:
    """Rows asked for, generated, scored and kept, stacked by the way of generating."""
    if not ways:
        return None
    lines = []
    asked = sum(way.asked for way in ways)
    for step in ("asked", "generated", "scored", "kept"):
        parts = [
            (float(getattr(way, step)), SHADES[min(i, len(SHADES) - 1)]) for i, way in enumerate(ways)
        ]
        rows = sum(getattr(way, step) for way in ways)
        share = f", {100 * rows / asked:.0f}%" if asked and step != "asked" else ""
        lines.append((step.capitalize(), parts, f"{rows:,}{share}"))
    return _bars("funnel", "Rows", lines)


def confidence(histogram: Histogram) -> Figure | None:
    """The teacher's probability for its first choice."""
    total = sum(histogram.counts)
    if not total:
        return None

    def draw(width: int) -> Canvas:
        canvas, axes = _plain_axes(width, 210)
        gaps = zip(histogram.edges, histogram.edges[1:], strict=False)
        widths = [right - left for left, right in gaps]
        axes.bar(
            histogram.edges[:-1],
            histogram.counts,
            width=[w * 0.88 for w in widths],
            align="edge",
            color=TEACHER,
        )
        axes.set_xlim(histogram.edges[0], histogram.edges[-1])
        axes.set_xlabel("Teacher's probability for its first choice")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        _title(canvas, "Rows")
        return canvas

    told = "; ".join(
        f"{left:.2f} to {right:.2f}: {rows:,}"
        for left, right, rows in zip(
            histogram.edges, histogram.edges[1:], histogram.counts, strict=False
        )
        if rows
    )
    return _figure("confidence", f"Teacher's confidence over {total:,} scored rows. {told}.", draw)


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
        canvas, axes = _plain_axes(width, 230, right=92)
        labels = []
        for name, colour, dash, points in known:
            if not points:
                continue
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, dash, color=colour, linewidth=2, marker="o", markersize=4)
            labels.append((ys[-1], name, colour))
            chosen = [(x, y) for x, y in points if name == "validation" and x == run.chosen]
            axes.plot(*zip(*chosen, strict=True), "o", color=colour, markersize=9) if chosen else None
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(8 if width == WIDE else 5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.03, y=0.12)
        axes.grid(axis="y")
        _end_labels(axes, labels)
        _title(canvas, "Loss")
        return canvas

    told = " ".join(
        f"Epoch {e.number}: training {wording.number(e.train_loss)}, "
        f"validation {wording.number(e.validation_loss)}."
        for e in run.epochs
    )
    return _figure(f"training{number}", f"Loss by epoch. {told}", draw)


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
        canvas, axes = _plain_axes(width, 300, left=64, right=84)
        ends = (teacher * span / 1000, making + student * span / 1000)
        axes.plot([0, span], [0, ends[0]], color=TEACHER, linewidth=2)
        axes.plot([0, span], [making, ends[1]], color=STUDENT, linewidth=2)
        if crosses:
            height = teacher * crossing / 1000
            axes.plot([crossing, crossing], [0, height], color=MUTED, linewidth=1, linestyle=":")
            axes.plot([crossing], [height], "o", color=INK, markersize=7)
            axes.annotate(
                f"{wording.requests(crossing)} requests",
                (crossing, height),
                (-8, 10),
                textcoords="offset points",
                ha="right",
                fontweight="bold",
            )
        axes.set_xlim(0, span)
        axes.set_ylim(0, 1.08 * max(*ends, 1e-12))
        axes.xaxis.set_major_locator(MaxNLocator(5 if width == WIDE else 3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / unit:,.10g}"))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda y, _: wording.money(y, money.currency) if y else "0")
        )
        axes.set_xlabel(f"Requests served{name}")
        axes.grid(axis="y")
        _end_labels(axes, [(ends[0], "teacher", TEACHER), (ends[1], "student", STUDENT)])
        _title(canvas, "Money spent in all")
        return canvas

    told = (
        f"The lines cross at {wording.requests(crossing)} requests."
        if crosses
        else "The lines do not cross."
    )
    cost = wording.money(making, money.currency)
    alt = f"Money spent by requests served; the student's line starts at {cost}. {told}"
    return _figure("break-even", alt, draw)


# How it is drawn ---------------------------------------------------------------------------------


def _accuracy(quality: Quality) -> Line:
    return Line(quality.name, *_scored(quality.score, quality.role))


def _scored(score: Score, role: str) -> tuple[list[Mark], str]:
    """The mark of a score, and its words; no mark where nothing was counted."""
    if score.share is None:
        return [], wording.UNKNOWN
    mark = Mark(score.share, *ROLES[role], score.low, score.high)
    return [mark], wording.percent(score.share)


def _percent_axis(axes: Any, values: list[float]) -> None:
    low = max(0.0, math.floor(min(values) * 10 - 0.1) / 10)
    high = min(1.0, math.ceil(max(values) * 10 + 0.1) / 10)
    axes.set_xlim(low - 0.004, high + 0.004)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f}%"))


def _count_axis(axes: Any, values: list[float]) -> None:
    top = max(*values, 1)
    axes.set_xlim(-0.02 * top, 1.05 * top)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def _milliseconds_axis(axes: Any, values: list[float]) -> None:
    top, bottom = max(values), max(min(values), 1e-3)
    if top / bottom > 20:  # the smaller one would be a speck on a linear axis
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xlim(bottom / 1.6, top * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top / bottom < 100 else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: wording.number(x, 1)))
    else:
        axes.set_xlim(-0.02 * top, 1.05 * top)
        axes.xaxis.set_major_locator(MaxNLocator(4))


def _dots(
    name: str,
    label: str,
    lines: list[Line],
    scale: Callable[[Any, list[float]], None],
    widths: tuple[int, int] = (WIDE, NARROW),
) -> Figure | None:
    """Rows of marks on a common axis."""
    lines = lines[:MOST_ROWS]
    values = [
        v
        for line in lines
        for mark in line.marks
        for v in (mark.value, mark.low, mark.high)
        if v is not None
    ]
    if not values:
        return None

    def draw(width: int) -> Canvas:
        canvas, axes = _row_axes(width, lines, label)
        for y, line in enumerate(lines):
            for mark in line.marks:
                _draw_mark(axes, mark, y)
        scale(axes, values)
        axes.grid(axis="x")
        return canvas

    return _figure(name, _alt(label, [(line.label, _with_interval(line)) for line in lines]), draw, widths)


def _with_interval(line: Line) -> str:
    ends = [(m.low, m.high) for m in line.marks if m.low is not None and m.high is not None]
    if not ends or "ms" in line.value:
        return line.value
    return f"{line.value} (95% interval {wording.between(*ends[-1])})"


def _draw_mark(axes: Any, mark: Mark, y: int) -> None:
    at = y + mark.shift
    if mark.low is not None and mark.high is not None:
        axes.plot([mark.low, mark.high], [at, at], color=mark.colour, linewidth=1.8)
    axes.plot(
        [mark.value],
        [at],
        linestyle="none",
        marker=mark.marker,
        markersize=12 if mark.marker == "|" else 7.5 if mark.marker == "D" else 9,
        markerfacecolor=PAPER if mark.hollow else mark.colour,
        markeredgecolor=mark.colour,
        markeredgewidth=2 if mark.hollow or mark.marker == "|" else 0,
        clip_on=False,
    )


def _bars(
    name: str, label: str, lines: list[tuple[str, list[tuple[float, str]], str]]
) -> Figure | None:
    """Rows of stacked bars on a common axis from zero."""
    lines = lines[:MOST_ROWS]
    top = max((sum(size for size, _ in parts) for _, parts, _ in lines), default=0.0)
    if top <= 0:
        return None
    rows = [Line(text, [], value) for text, _, value in lines]

    def draw(width: int) -> Canvas:
        canvas, axes = _row_axes(width, rows, label)
        tall = 0.26 if width == NARROW else 0.5
        for y, (_, parts, _) in enumerate(lines):
            left = 0.0
            for size, colour in parts:
                if size > 0:
                    axes.barh(
                        [y], [size], left=left, height=tall, color=colour, linewidth=0
                    )
                    ends = [y - tall / 2, y + tall / 2]
                    axes.plot([left, left], ends, color=PAPER, linewidth=1.2)
                left += size
        _count_axis(axes, [top])
        axes.set_xlim(0, 1.02 * top)
        axes.grid(axis="x")
        return canvas

    return _figure(name, _alt(label, [(line.label, line.value) for line in rows]), draw)


def _alt(label: str, rows: list[tuple[str, str]]) -> str:
    return f"{label}. " + "; ".join(f"{_short(name, 60)}: {value}" for name, value in rows) + "."


def _row_axes(width: int, lines: list[Line], label: str) -> tuple[Canvas, Any]:
    """Axes with one row per line: label and value beside it, or above it on a phone."""
    narrow = width == NARROW
    bare = not any(line.label for line in lines)
    row = 26 if bare else 46 if narrow else 34
    top, bottom = (4, 46 if label else 28)
    height = top + row * len(lines) + bottom
    left = right = 8.0
    if not narrow and not bare:
        left = 18 + LETTER * max(len(_short(line.label, MOST_LETTERS)) for line in lines)
        right = 24 + LETTER * max(len(line.value) for line in lines)
    canvas, axes = _axes(width, height, (left, bottom, width - left - right, row * len(lines)))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlabel(label)
    for y, line in enumerate(lines):
        # In pixels from the bottom of the drawing.
        middle = bottom + row * (len(lines) - y - 0.5)
        at = (middle + 15 if narrow else middle) / height
        shown = _short(line.label, MOST_LETTERS)
        if bare:
            continue
        canvas.text(0, at, shown, va="center", fontweight="bold" if line.heading else "normal")
        canvas.text(1, at, line.value, ha="right", va="center", color=INK if narrow else MUTED)
    return canvas, axes


def _plain_axes(width: int, height: int, left: int = 52, right: int = 12) -> tuple[Canvas, Any]:
    """Axes of an ordinary plot, its title above the vertical axis."""
    return _axes(width, height, (left, 48, width - left - right, height - 48 - 30))


def _axes(width: int, height: int, box: tuple[float, float, float, float]) -> tuple[Canvas, Any]:
    canvas = Canvas(figsize=(width / 72, height / 72), dpi=72)
    canvas.patch.set_alpha(0)
    x, y, w, h = box
    return canvas, canvas.add_axes((x / width, y / height, w / width, h / height))


def _title(canvas: Canvas, text: str) -> None:
    canvas.text(0, 1, text, va="top", color=MUTED, fontsize=12)


def _end_labels(axes: Any, labels: list[tuple[float, str, str]]) -> None:
    """Name lines at their right ends, moved apart where they would lie on each other."""
    bottom, top = axes.get_ylim()
    gap = 0.085 * (top - bottom)
    right = axes.get_xlim()[1]
    last = -math.inf
    for height, name, colour in sorted(labels):
        last = max(height, last + gap)
        axes.annotate(
            name, (right, last), (8, 0), textcoords="offset points",
            va="center", color=colour, annotation_clip=False,
        )


def _short(text: str, limit: int) -> str:
    """A label on one line."""
    line = " ".join(clean(text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _figure(
    name: str,
    alt: str,
    draw: Callable[[int], Canvas],
    widths: tuple[int, int] = (WIDE, NARROW),
) -> Figure:
    with mpl.rc_context(STYLE):
        wide, narrow = (_svg(draw(width), f"{name}-{width}") for width in widths)
    return Figure(name, alt, wide, narrow)


def _svg(canvas: Canvas, prefix: str) -> str:
    """The drawing as an element for a page: no addresses, no styles that leak, ids of its own."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    canvas.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', svg, count=1)
    pairs = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
    used = {name for pair in pairs for name in pair if name}
    # Only inside tags: a label may say anything, and is escaped.
    svg = re.sub(r"<[^>]+>", lambda tag: _tag(tag[0], prefix, used), svg)
    return re.sub(r"\n\s*", "\n", svg).strip()


def _tag(tag: str, prefix: str, used: set[str]) -> str:
    """A tag with the page's colours and font, and with an id only where something refers to it."""
    tag = re.sub(
        r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", tag
    )
    tag = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', tag)
    tag = tag.replace("url(#", f"url(#{prefix}-")
    tag = re.sub(r"font: ((?:\w+ )*)([\d.]+)px [^;\"]*", _font, tag)
    tag = re.sub(r"font-family: [^;\"]*; ?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    return re.sub(r"#0101\w\w", lambda m: f"var(--{COLOURS[m[0]]})", tag)


def _font(match: re.Match[str]) -> str:
    """Size and weight of a text, without the family, which is the page's."""
    weight = "; font-weight: 600" if "bold" in match[1] or "700" in match[1] else ""
    return f"font-size: {match[2]}px{weight}"
