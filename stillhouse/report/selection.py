"""What the report shows of the choice of how teachers are asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """One way to ask one teacher."""

    dataset: str
    what: str
    """`sampling` or `prompt`."""
    teacher: str
    name: str
    score: float
    chosen: bool


@dataclass(frozen=True)
class Choice:
    """All candidates of a run, in the order in which they were compared."""

    measure: str
    """As of `report.arms.MEASURES`."""
    rows: int
    """That the candidates of the first data set were compared on."""
    candidates: list[Candidate]
