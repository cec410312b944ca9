"""What a sweep looks like on the terminal: one line a trial, and the best so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.table import Table

from stillhouse.display import RunDisplay
from stillhouse.report.wording import money
from stillhouse.sweep_book import SweepBook
from stillhouse.sweep_table import describe, progress_of, trial_table


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
