"""The plot of a search for a prompt: the score of every instruction by its round."""

from __future__ import annotations

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stillhouse.report.drawing import BASELINE, TEACHER, Figure, figure, plain_axes, title
from stillhouse.report.prompt_search import PromptSearch
from stillhouse.report.wording import percent


def score_by_round(found: PromptSearch) -> Figure:
    """Dots for instructions, and a line for the best so far."""
    begin = max(one.scoring for one in found.instructions if one.round == 0)
    best = [begin, *(one.best / 100 for one in found.rounds)]

    def draw(width: int) -> Canvas:
        canvas, axes = plain_axes(width, 240)
        axes.step(range(len(best)), best, where="post", color=TEACHER, linewidth=2)
        axes.plot(
            [one.round for one in found.instructions],
            [one.scoring for one in found.instructions],
            linestyle="none",
            marker="o",
            markersize=7,
            markerfacecolor=BASELINE,
            markeredgecolor=BASELINE,
            clip_on=False,
        )
        axes.margins(x=0.04, y=0.14)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}%"))
        axes.grid(axis="y")
        title(canvas, "Right answers to the scoring rows")
        return canvas

    told = " ".join(
        f"Round {one.round}: best {one.best}%, {one.valid} of {one.proposed} valid."
        for one in found.rounds
    )
    return figure("search", f"Score by round. Begins with {percent(begin)}. {told}", draw)
