"""What the report shows of people's ratings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PeopleTable:
    """What people think of the arms on one data set."""

    dataset: str
    arms: list[str]
    """In the order of the tables."""
    raters: dict[str, dict[str, float]]
    """By rater and arm: the mean."""
    means: dict[str, float]
    """By arm: the mean over the raters of their means."""
    replies: int
    """That anybody has rated."""


@dataclass(frozen=True)
class People:
    """All ratings by people."""

    tables: list[PeopleTable]
    alpha: float | None
    """Krippendorff's, of all data sets together; None where there is nothing to compare."""
    raters: int
