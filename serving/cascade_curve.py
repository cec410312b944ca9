"""What a student that defers to its teacher gives: right answers by the share that it defers.

A student defers where its highest probability is no higher than a threshold. The threshold is
chosen on some evaluation rows, and what it gives is told of the others: chosen and judged on the
same rows, it would look better than it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WITHIN = 0.01
"""How far below the teacher's accuracy a cascade may be, where nothing else is said: one point."""


@dataclass(frozen=True)
class Row:
    """What both answered to one evaluation row."""

    id: str
    confidence: float
    """The student's highest probability."""
    student_right: bool
    teacher_right: bool


@dataclass(frozen=True)
class Point:
    """What one threshold gives on some rows."""

    threshold: float
    """A student that is surer than this answers itself; one as sure, or less sure, defers."""
    deferred: float
    """Share of the rows that the teacher answered, 0 to 1."""
    right: int
    """Right answers of both together."""
    rows: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.rows


@dataclass(frozen=True)
class Cascade:
    """A chosen threshold, and what it gives on rows that it was not chosen on."""

    within: float
    """How far below the teacher it may be on the rows that it was chosen on."""
    chosen: Point
    """On the rows that the threshold was chosen on."""
    judged: Point
    """On the others."""
    student: float
    """Accuracy of the student alone on the rows that it is judged on."""
    teacher: float
    """Of the teacher alone."""
    curve: list[Point]
    """On the rows that it is judged on, from all-student to all-teacher."""


def halves(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows to choose on, and the others: by their ids, so that it is always the same."""
    even = [row for row in rows if int(row.id[:8], 16) % 2 == 0]
    odd = [row for row in rows if int(row.id[:8], 16) % 2]
    return even, odd


def at(rows: Sequence[Row], threshold: float) -> Point:
    """What a threshold gives."""
    deferred = [row for row in rows if row.confidence <= threshold]
    kept = [row for row in rows if row.confidence > threshold]
    right = sum(row.teacher_right for row in deferred) + sum(row.student_right for row in kept)
    return Point(threshold, len(deferred) / len(rows), right, len(rows))


def curve(rows: Sequence[Row]) -> list[Point]:
    """All thresholds that differ, from one that defers nothing to one that defers everything."""
    ordered = sorted(rows, key=lambda row: row.confidence)
    right = sum(row.student_right for row in rows)
    points = [Point(0.0, 0.0, right, len(rows))]
    for number, row in enumerate(ordered, start=1):
        right += row.teacher_right - row.student_right
        last = number == len(ordered) or ordered[number].confidence > row.confidence
        if last:  # rows that are equally sure are deferred together
            points.append(Point(row.confidence, number / len(rows), right, len(rows)))
    return points


def choose(rows: Sequence[Row], within: float = WITHIN) -> Point:
    """The threshold that defers least among those that come close enough to the teacher.

    Args:
        rows: To choose on.
        within: How far below the teacher's accuracy is close enough, 0 to 1.
    """
    teacher = sum(row.teacher_right for row in rows) / len(rows)
    # Deferring everything is the teacher itself, so there always is one.
    return next(point for point in curve(rows) if point.accuracy >= teacher - within - 1e-12)


def cascade(rows: Sequence[Row], within: float = WITHIN) -> Cascade | None:
    """Choose a threshold on one half and judge it on the other; None where a half is empty."""
    choosing, judging = halves(rows)
    if not choosing or not judging:
        return None
    chosen = choose(choosing, within)
    return Cascade(
        within,
        chosen,
        at(judging, chosen.threshold),
        sum(row.student_right for row in judging) / len(judging),
        sum(row.teacher_right for row in judging) / len(judging),
        curve(judging),
    )
