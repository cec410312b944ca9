"""What the report shows of the arms: the tables of 2410.18588, and what each arm costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from stillhouse.report.wording import UNKNOWN

Measure = Literal["accuracy", "entity_density", "judge"]

MEASURES: dict[str, str] = {
    "accuracy": "Right answers, %",
    "entity_density": "Entity density",
    "judge": "Rating of the judges, 1 to 5",
}


@dataclass(frozen=True)
class ArmScore:
    """How one arm does on one data set."""

    value: float | None
    """The mean over its rows: a share, a density or a rating; None where nothing was judged."""
    low: float | None
    """Lower end of the 95% interval."""
    high: float | None
    rows: int
    """That it answered."""
    unparsed: int
    """Texts without an answer, which count as wrong, or as 0."""
    tokens_in: float | None = None
    """Of a row's prompts, in the mean; None where nobody has counted them."""
    tokens_out: float | None = None
    per_thousand: float | None = None
    """Money for a thousand rows; None where it is unknown."""
    paid_by: Literal["tokens", "device time", "recorded"] | None = None


@dataclass(frozen=True)
class ArmColumn:
    """One arm of one model."""

    arm: str
    """As its rows call it."""
    model: str
    """The teacher or the student, by its name in the recipe."""
    role: Literal["teacher", "student"]
    head: str
    """Of its column."""


@dataclass(frozen=True)
class ArmRow:
    """One data set."""

    dataset: str
    scores: dict[str, ArmScore]
    """By arm; those that are not there are not done."""


@dataclass(frozen=True)
class ArmTable:
    """All arms on the data sets of one measure."""

    measure: Measure
    columns: list[ArmColumn]
    """Those of which any data set has a score, those of a model side by side."""
    rows: list[ArmRow]

    @property
    def models(self) -> list[tuple[str, str, int]]:
        """Name, role and number of columns of each model, in their order."""
        found: dict[str, tuple[str, str, int]] = {}
        for column in self.columns:
            _, role, number = found.get(column.model, (column.model, column.role, 0))
            found[column.model] = (column.model, role, number + 1)
        return list(found.values())

    @property
    def counted(self) -> bool:
        """Whether anybody has counted tokens."""
        return any(s.tokens_in is not None for row in self.rows for s in row.scores.values())

    def beats_the_plain_teacher(self, row: ArmRow, column: ArmColumn) -> bool:
        """Whether a student's arm does at least as well as the first teacher, asked plainly."""
        plain = next((c for c in self.columns if c.role == "teacher"), None)
        mine, theirs = row.scores.get(column.arm), row.scores.get(plain.arm) if plain else None
        if column.role == "teacher" or mine is None or theirs is None:
            return False
        return mine.value is not None and theirs.value is not None and mine.value >= theirs.value


def in_words(value: float | None, measure: str) -> str:
    """A score in the digits of its measure."""
    if value is None:
        return UNKNOWN
    if measure == "accuracy":
        return f"{100 * value:.1f}"
    return f"{value:.4f}" if measure == "entity_density" else f"{value:.2f}"


def mean_interval(
    values: Sequence[float], least: float = -math.inf, most: float = math.inf
) -> tuple[float, float] | None:
    """95% interval of a mean by Student's t; None of fewer than two values.

    Args:
        values: Of which it is the mean.
        least: Below which no value can be.
        most: Above which none can be.
    """
    if len(values) < 2:
        return None
    array = np.asarray(values, float)
    reach = float(stdtrit(len(array) - 1, 0.975)) * float(array.std(ddof=1)) / math.sqrt(len(array))
    mean = float(array.mean())
    return max(mean - reach, least), min(mean + reach, most)
