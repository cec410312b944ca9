"""How the report's plots are drawn: matplotlib in, SVG for the page out.

Every plot is drawn twice, for a desk's screen and for a phone's, because an SVG that is scaled
down to a phone has letters nobody can read; the style sheet shows one of the two. Texts stay texts
in the page's own font, and the colours below become CSS variables, so that a plot follows the page
from light to dark.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from stillhouse.report import wording
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
    spoken: str = ""
    """The value for those who hear the page; the value itself if empty."""
    heading: bool = False
    """Names the rows that follow."""


@dataclass(frozen=True)
class Stack:
    """A row of parts that add up."""

    label: str
    parts: list[tuple[float, str]]
    """Sizes and colours, from the left."""
    value: str


def percent_axis(axes: Any, values: list[float]) -> None:
    """Shares, in tenths around the values."""
    low = max(0.0, math.floor(min(values) * 10 - 0.1) / 10)
    high = min(1.0, math.ceil(max(values) * 10 + 0.1) / 10)
    axes.set_xlim(low - 0.004, high + 0.004)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f}%"))


def count_axis(axes: Any, values: list[float]) -> None:
    """Counts from zero."""
    top = max(*values, 1)
    axes.set_xlim(-0.02 * top, 1.05 * top)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def milliseconds_axis(axes: Any, values: list[float]) -> None:
    """Times from zero, or by powers of ten where they are far apart."""
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


def dots(
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

    return figure(name, alt_text(label, lines), draw, widths)


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


def bars(name: str, label: str, stacks: list[Stack]) -> Figure | None:
    """Rows of stacked bars on a common axis from zero."""
    stacks = stacks[:MOST_ROWS]
    top = max((sum(size for size, _ in stack.parts) for stack in stacks), default=0.0)
    if top <= 0:
        return None
    lines = [Line(stack.label, [], stack.value) for stack in stacks]

    def draw(width: int) -> Canvas:
        canvas, axes = _row_axes(width, lines, label)
        tall = 0.26 if width == NARROW else 0.5
        for y, stack in enumerate(stacks):
            left = 0.0
            for size, colour in stack.parts:
                if size > 0:
                    axes.barh([y], [size], left=left, height=tall, color=colour, linewidth=0)
                    ends = [y - tall / 2, y + tall / 2]
                    axes.plot([left, left], ends, color=PAPER, linewidth=1.2)
                left += size
        count_axis(axes, [top])
        axes.set_xlim(0, 1.02 * top)
        axes.grid(axis="x")
        return canvas

    return figure(name, alt_text(label, lines), draw)


def alt_text(label: str, lines: list[Line]) -> str:
    """Rows in words."""
    told = [f"{_short(line.label, 60)}: {line.spoken or line.value}" for line in lines]
    return f"{label}. " + "; ".join(told) + "."


def _row_axes(width: int, lines: list[Line], label: str) -> tuple[Canvas, Any]:
    """Axes with one row per line: label and value beside it, or above it on a phone."""
    narrow = width == NARROW
    bare = not any(line.label for line in lines)
    row = 26 if bare else 52 if narrow else 34
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
    for y, line in enumerate(lines if not bare else []):
        # In pixels from the bottom of the drawing. On a phone a heading stands close to the rows
        # below it, any other label above its marks.
        above = 0 if not narrow else -10 if line.heading else 20
        at = (bottom + row * (len(lines) - y - 0.5) + above) / height
        weight = "bold" if line.heading else "normal"
        canvas.text(0, at, _short(line.label, MOST_LETTERS), va="center", fontweight=weight)
        canvas.text(1, at, line.value, ha="right", va="center", color=INK if narrow else MUTED)
    return canvas, axes


def plain_axes(width: int, height: int, left: int = 52, right: int = 12) -> tuple[Canvas, Any]:
    """Axes of an ordinary plot, its title above the vertical axis."""
    return _axes(width, height, (left, 48, width - left - right, height - 48 - 30))


def _axes(width: int, height: int, box: tuple[float, float, float, float]) -> tuple[Canvas, Any]:
    canvas = Canvas(figsize=(width / 72, height / 72), dpi=72)
    canvas.patch.set_alpha(0)
    x, y, w, h = box
    return canvas, canvas.add_axes((x / width, y / height, w / width, h / height))


def title(canvas: Canvas, text: str) -> None:
    """Words in the upper left corner: what the vertical axis counts."""
    canvas.text(0, 1, text, va="top", color=MUTED, fontsize=12)


def end_labels(axes: Any, labels: list[tuple[float, str, str]]) -> None:
    """Name lines at their right ends, moved apart where they would lie on each other."""
    bottom, top = axes.get_ylim()
    gap = 0.085 * (top - bottom)
    right = axes.get_xlim()[1]
    last = -math.inf
    for height, name, colour in sorted(labels):
        last = max(height, last + gap)
        axes.annotate(
            name,
            (right, last),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def _short(text: str, limit: int) -> str:
    """A label on one line."""
    line = " ".join(clean(text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def figure(
    name: str,
    alt: str,
    draw: Callable[[int], Canvas],
    widths: tuple[int, int] = (WIDE, NARROW),
) -> Figure:
    """Both drawings of a plot, by a function that draws it in a given width."""
    with mpl.rc_context(STYLE):
        wide, narrow = (_svg(draw(width), f"{name}-{width}") for width in widths)
    return Figure(name, alt, wide, narrow)


def _svg(canvas: Canvas, prefix: str) -> str:
    """The drawing as an element for a page: no addresses, no styles that leak, ids of its own."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        # The letters are the page's; matplotlib need not have them.
        warnings.filterwarnings("ignore", message=r"(?s)(Glyph|.*missing from)")
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
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", tag)
    tag = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', tag)
    tag = tag.replace("url(#", f"url(#{prefix}-")
    tag = re.sub(r"font: ((?:\w+ )*)([\d.]+)px [^;\"]*", _font, tag)
    tag = re.sub(r"font-family: [^;\"]*; ?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    return re.sub(r"#0101\w\w", lambda m: f"var(--{COLOURS[m[0]]})", tag)


def _font(match: re.Match[str]) -> str:
    """Size and weight of a text, without the family, which is the page's (matplotlib 3.10)."""
    weight = "; font-weight: 600" if "bold" in match[1] or "700" in match[1] else ""
    return f"font-size: {match[2]}px{weight}"
