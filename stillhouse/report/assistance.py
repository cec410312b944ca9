"""A teaching assistant's run, as the report tells of it (2406.05322)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Signal:
    """How well a confidence tells right answers from wrong ones."""

    name: str
    """Whose confidence in whose answer."""
    answers: int
    """Of which somebody knows whether they are right."""
    right: int
    mean: float | None
    """Of the confidences; None where there is no answer."""
    auroc: float | None
    """The chance that a right answer has more of it than a wrong one; None where all are alike."""


@dataclass(frozen=True)
class Labels:
    """The teacher's answers as labels."""

    labels: int
    """Of which somebody knows whether they are right."""
    precision: float | None
    """The share of right ones, by what they count in the loss."""


@dataclass(frozen=True)
class Assistance:
    """What a budget bought, and what was made of it."""

    teacher: str
    assistant: str
    budget_calls: int | None
    budget_money: float | None
    """One of them is None."""
    calls: int
    """Questions to the teacher, those that came to nothing included."""
    money: float | None
    """For them, by the tokens of the teacher's model where they are counted and have a price, else
    by what the ledger has; None where neither is known."""
    warm_up: int
    """Rows that were drawn."""
    acquired: int
    """Rows that were chosen."""
    chosen_by: str
    """`signals` or `random`."""
    candidates: int
    """Rows that they were chosen from."""
    wanted: int
    """Rows that the budget would have bought."""
    signals: list[Signal]
    trust: str
    """What was made of the assistant's confidence in the teacher: `filter`, `weight`, `everything`
    or `gold`."""
    before: Labels
    after: Labels

    @property
    def mean_money(self) -> float | None:
        """Of a call."""
        return self.money / self.calls if self.money is not None and self.calls else None
