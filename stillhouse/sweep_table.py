"""A sweep's trials as people read them on a terminal."""

from __future__ import annotations

from rich.table import Table

from stillhouse.report.sweep import STATES, score_in_words, short_keys, value_in_words
from stillhouse.sweep_book import SweepBook, Trial


def progress_of(book: SweepBook) -> str:
    """How many trials are done, and the best so far, in words."""
    done = sum(trial.settled for trial in book.trials)
    text = f"{done} of {len(book.trials)} trials done"
    ranked = book.ranked()
    if ranked:
        text += f", best so far trial {ranked[0].number} ({_score(ranked[0], book)})"
    return text


def describe(trial: Trial, book: SweepBook) -> str:
    """What became of a trial, in words."""
    if trial.state == "failed":
        return f"failed: {trial.error}"
    text = STATES[trial.state]
    if trial.history:
        text += f", {len(trial.history)} epochs, {_score(trial, book)}"
    return text


def trial_table(book: SweepBook) -> Table:
    """All trials."""
    table = Table(box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    keys = list(book.trials[0].values)
    for key in short_keys(keys):
        table.add_column(key)
    table.add_column("")
    for trial in book.trials:
        values = [value_in_words(trial.values[key]) for key in keys]
        best = book.ranked()[:1] == [trial]
        style = "bold" if best else "" if trial.state in ("runs", "finished") else "dim"
        table.add_row(str(trial.number), *values, describe(trial, book), style=style)
    return table


def _score(trial: Trial, book: SweepBook) -> str:
    return f"{book.metric} {score_in_words(trial.score(book.metric), book.metric)}"
