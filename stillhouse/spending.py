"""What a run has spent, beside what its recipe lets it spend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from core.errors import StillhouseError, UseError, WorkError
from core.ledger import Entry, Ledger, Total, total
from core.prices import PriceBook
from core.recipe import Budget
from stillhouse.report.wording import money

_Limit = tuple[str, float | None, float | None, float | None, Callable[[float | None], str]]


class Spending:
    """The ledger of a run while it goes on, and its budget."""

    def __init__(self, ledger: Ledger, budget: Budget, prices: PriceBook) -> None:
        self._ledger = ledger
        self._budget = budget
        self._prices = prices
        self._before = ledger.entries()
        self._now: dict[tuple[str, ...], Entry] = {}

    def write(self, entry: Entry, work: str) -> None:
        """Put what an attempt has used so far into the ledger."""
        entry = replace(entry, work=work)
        self._now[entry.stage, entry.attempt, entry.device, entry.teacher, entry.model] = entry
        self._ledger.write(entry)

    def over(self, ahead: Sequence[Entry] = ()) -> StillhouseError | None:
        """The error to stop with, or None while there is budget left.

        Args:
            ahead: What is on its way and will be spent in any case.
        """
        budget = self._budget
        if budget == Budget():
            return None
        spent = total([*self._before, *self._now.values()], self._prices)
        coming = total(ahead, self._prices)
        if budget.money is not None and (spent.money is None or coming.money is None):
            return UseError(
                "budget.money",
                "a price is missing, so nobody knows what the run has cost.",
                "Add the device's or the endpoint's price to the price book, or set "
                "budget.device_hours or budget.tokens instead.",
            )
        currency = self._prices.currency
        limits: list[_Limit] = [
            ("money", budget.money, spent.money, coming.money, lambda x: money(x, currency)),
            ("device_hours", budget.device_hours, _hours(spent), _hours(coming), "{:.3g}".format),
            ("tokens", budget.tokens, spent.entry.tokens, coming.entry.tokens, "{:,.0f}".format),
        ]
        for name, limit, used, more, shown in limits:
            if limit is not None and (used or 0) + (more or 0) >= limit:
                return WorkError(
                    f"budget.{name}",
                    f"{shown(used)} of {shown(limit)} is spent, and what is on its way takes "
                    f"{shown(more)}: the run stops here.",
                    f"What is done is kept. Raise budget.{name} and run the same command to go on.",
                )
        return None


def _hours(spent: Total) -> float:
    return spent.entry.device_seconds / 3600
