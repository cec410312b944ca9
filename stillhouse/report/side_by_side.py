"""What the report shows of single evaluation rows: all arms' answers beside one another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ArmAnswer:
    """What one arm answered to a row."""

    arm: str
    replies: list[str]
    """One text, or one to each turn of a conversation."""
    predicted: str | None
    """The answer found in it; None where there is none, or where it is the whole text."""
    right: bool | None
    """None where no answer is the right one."""
    score: float | None
    """Its entity density, or its mean rating; None where it has none."""


@dataclass(frozen=True)
class SideBySide:
    """One evaluation row."""

    dataset: str
    turns: list[str]
    """What was asked: one text, or the turns of a conversation."""
    answer: str | None
    """The right one, where there is one."""
    arms: list[ArmAnswer]
    """In the order of the tables."""
