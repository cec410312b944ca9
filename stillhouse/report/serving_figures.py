"""The plots of serving: what latency becomes of more requests, and what deferring buys."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from stillhouse.report import wording
from stillhouse.report.data import Cascade, Serving
from stillhouse.report.drawing import (
    INK,
    MUTED,
    STUDENT,
    TEACHER,
    Figure,
    end_labels,
    figure,
    plain_axes,
    title,
)
from stillhouse.report.figures import ROLES


def rates(servings: Sequence[Serving]) -> Figure | None:
    """The 95th percentile of the latency by the requests that arrive in a second."""
    curves = [
        (one, [(point.rate, point.p95_ms) for point in one.rates if point.p95_ms is not None])
        for one in servings
    ]
    curves = [(one, points) for one, points in curves if points]
    if not curves:
        return None
    objective = next((one.objective_ms for one, _ in curves), None)

    def draw(width: int) -> Canvas:
        canvas, axes = plain_axes(width, 300, left=64, right=84)
        axes.set_xscale("log")
        axes.set_yscale("log")
        labels = []
        for one, points in curves:
            colour, marker = ROLES[one.role]
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, "-", color=colour, linewidth=2, marker=marker, markersize=6)
            labels.append((ys[-1], one.role, colour))
        if objective is not None:
            axes.axhline(objective, color=MUTED, linewidth=1, linestyle=":")
            axes.annotate(
                "objective",
                (0.01, objective),
                (0, 4),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                color=MUTED,
            )
        axes.margins(x=0.05, y=0.15)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if width > 400 else (1,)))
            axis.set_major_formatter(FuncFormatter(lambda x, _: wording.number(x, 1)))
        axes.minorticks_off()
        axes.set_xlabel("Requests that arrive in a second")
        axes.grid(axis="y")
        # At the right end of each curve, as they end at different rates.
        for height, name, colour in labels:
            axes.annotate(
                name,
                (next(points[-1][0] for one, points in curves if one.role == name), height),
                (8, 0),
                textcoords="offset points",
                va="center",
                color=colour,
            )
        title(canvas, "95th percentile of the latency, ms")
        return canvas

    told = " ".join(
        f"{one.role}: "
        + ", ".join(f"{wording.number(x)} a second, {wording.number(y)} ms" for x, y in points)
        + "."
        for one, points in curves
    )
    return figure("rates", f"Latency by requests that arrive in a second. {told}", draw)


def cascade(found: Cascade) -> Figure | None:
    """Right answers by the share of rows that the teacher answers."""
    shares = [100 * point.deferred for point in found.curve]
    right = [100 * point.accuracy for point in found.curve]

    def draw(width: int) -> Canvas:
        canvas, axes = plain_axes(width, 280, left=56, right=84)
        axes.axhline(100 * found.teacher_accuracy, color=TEACHER, linewidth=1, linestyle=":")
        axes.step(shares, right, where="post", color=STUDENT, linewidth=2)
        axes.plot(
            [100 * found.deferred], [100 * found.accuracy], "o", color=INK, markersize=8, zorder=3
        )
        axes.set_xlim(-1, 101)
        axes.margins(y=0.15)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}%"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0f}%"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("Rows that the teacher answers")
        axes.grid(axis="y")
        end_labels(axes, [(100 * found.teacher_accuracy, "teacher", TEACHER)])
        title(canvas, "Right answers")
        return canvas

    told = (
        f"Right answers by the share that the teacher answers: from {right[0]:.1f}% with none to "
        f"{right[-1]:.1f}% with all; {100 * found.accuracy:.1f}% with the chosen "
        f"{100 * found.deferred:.1f}%."
    )
    return figure("cascade", told, draw)
