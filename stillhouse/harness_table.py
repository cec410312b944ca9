"""What lm-eval found, on the terminal."""

from __future__ import annotations

from rich.table import Table

from stillhouse.report.harness import Evaluated, score_in_words
from stillhouse.report.wording import count


def harness_table(found: Evaluated) -> Table:
    """A line for each metric of each task."""
    base = {(score.task, score.metric): score for score in found.base}
    table = Table(box=None, pad_edge=False)
    for column in ("task", "metric"):
        table.add_column(column)
    for column in ("rows", found.student, *(["undistilled"] if base else [])):
        table.add_column(column, justify="right")
    for score in found.scores:
        beside = base.get((score.task, score.metric))
        table.add_row(
            score.task,
            score.metric,
            "" if score.rows is None else count(score.rows),
            score_in_words(score),
            *([score_in_words(beside) if beside else ""] if base else []),
        )
    return table
