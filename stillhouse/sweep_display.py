"""What a sweep looks like on the terminal: one line a trial, and the best so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.table import Table

from stillhouse.display import RunDisplay
from stillhouse.report.sweep import STATES, score_in_words, short_keys, value_in_words
from stillhouse.report.wording import money
from stillhouse.sweep_book import SweepBook, Trial


@dataclass
class SweepDisplay(RunDisplay):
    """Shows the stages that trials have in common, then the trials."""

    book: SweepBook | None = None
    """Of the trials, once they are at work."""
    _told: dict[int, str] = field(default_factory=dict)

    def table(self) -> Table:
        """The live picture."""
        if self.book is None:
            return super().table()
        spent = money(self._spent(), self.prices.currency)
        table = trial_table(self.book)
        table.caption = f"{progress_of(self.book)}, cost so far {spent}"
        table.caption_style = ""
        return table

    def look(self) -> None:
        """Tell what is new where there is no terminal to draw on."""
        assert self.book is not None, "the trials are at work"
        for trial in self.book.trials:
            told = f"trial {trial.number}: {describe(trial, self.book)}"
            if trial.state != "waits" and self._told.get(trial.number) != trial.state:
                self._told[trial.number] = trial.state
                self._plain(f"{told}; {progress_of(self.book)}", at_once=True)


def progress_of(book: SweepBook) -> str:
    """How many trials are done, and the best so far, in words."""
    done = sum(trial.settled for trial in book.trials)
    running = sum(trial.state == "runs" for trial in book.trials)
    text = f"{done} of {len(book.trials)} trials done"
    if running:
        text += f", {running} at work"
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
