"""Reads a run's sweep into the report."""

from __future__ import annotations

from stillhouse.report.data import Sweep, SweepTrial
from stillhouse.run_reader import RunReader


def sweep_of(reader: RunReader) -> Sweep | None:
    """The trials of a run, done or not; None where it has no sweep."""
    book = reader.book
    if book is None:
        return None
    book.account(reader.spent, reader.prices)
    keys = list(book.trials[0].values)
    return Sweep(
        student=book.student,
        metric=book.metric,
        rising=book.rising,
        keys=keys,
        logarithmic=book.logarithmic,
        notes=book.notes,
        trials=[
            SweepTrial(
                number=trial.number,
                values=[trial.values[key] for key in keys],
                state=trial.state,
                epochs=len(trial.history),
                score=trial.score(book.metric),
                device_seconds=trial.device_seconds,
                money=trial.money,
            )
            for trial in book.trials
        ],
        best=book.best,
    )
