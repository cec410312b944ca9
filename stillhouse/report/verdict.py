"""Was it worth it? One sentence, and the figures that it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stillhouse.report.data import Economics, ReportData, Serving
from stillhouse.report.intervals import Interval, difference, paired_difference
from stillhouse.report.wording import days, number, percent, requests, signed_points

LONG_DAYS = 365.0
"""A break-even further away than this is told with its time, as the requests sound near."""


@dataclass(frozen=True)
class Verdict:
    """The answer of the first screen."""

    sentence: str
    evidence: str
    """What the sentence rests on; empty where nothing was compared."""


@dataclass(frozen=True)
class Difference:
    """Student's accuracy less the teacher's."""

    share: float
    interval: Interval
    paired: bool
    rows: int


def accuracy_difference(data: ReportData) -> Difference | None:
    """How much better the student answers than its teacher; None where that is not known."""
    student, teacher = data.student, data.teacher
    if data.comparison is None or student is None or teacher is None:
        return None
    pair = data.comparison.paired
    if pair is not None:
        interval = paired_difference(pair.both, pair.only_student, pair.only_teacher, pair.neither)
        rows = pair.both + pair.only_student + pair.only_teacher + pair.neither
        share = (pair.only_student - pair.only_teacher) / rows if rows else 0.0
    else:
        first, second = student.score, teacher.score
        interval = difference((first.correct, first.total), (second.correct, second.total))
        rows = min(first.total, second.total)
        share = (first.share or 0.0) - (second.share or 0.0)
    return None if interval is None else Difference(share, interval, pair is not None, rows)


def ratio_in_words(teacher: float, student: float, of: str) -> str:
    """What the student needs beside its teacher, such as `1/14 of the cost`."""
    if student >= teacher:
        same = math.isclose(student, teacher)
        return f"the same {of}" if same else f"{number(student / teacher, 2)} times the {of}"
    if student == 0:
        return f"none of the {of}"
    if teacher / student >= 9.5:
        return f"1/{teacher / student:,.0f} of the {of}"
    return f"{number(100 * student / teacher, 2)}% of the {of}"


def verdict(data: ReportData) -> Verdict:
    """Judge a student by the figures of its report."""
    gap = accuracy_difference(data)
    sentence = f"{_quality(gap)} {_cost(data)}."
    if gap is None or data.student is None or data.teacher is None:
        return Verdict(sentence, "")
    low, high = (signed_points(end) for end in gap.interval)
    how = "paired, on the same rows" if gap.paired else "not paired"
    evidence = (
        f"{percent(data.student.score.share)} against {percent(data.teacher.score.share)} over "
        f"{gap.rows:,} held-out rows: {signed_points(gap.share)} points, "
        f"95% interval {low} to {high} ({how})."
    )
    return Verdict(sentence, evidence)


def _quality(gap: Difference | None) -> str:
    if gap is None:
        return "Nobody knows yet how well the student answers. It does so"
    points = f"{abs(round(100 * gap.share, 1)):.1f}"
    points += " point" if points == "1.0" else " points"
    low, high = gap.interval
    if low > 0:
        return f"The student answers {points} better than its teacher"
    if high < 0:
        return f"The student is clearly worse: it answers {points} below its teacher"
    if points == "0.0 points":
        return "The student answers as well as its teacher"
    word = "better" if gap.share > 0 else "worse"
    return f"The student answers {points} {word} than its teacher, within the margin of error,"


def _cost(data: ReportData) -> str:
    money = data.economics
    teacher, student = money.teacher_per_thousand, money.student_per_thousand
    if teacher is None or student is None:
        return _unpriced(data.servings)
    share = f"at {ratio_in_words(teacher, student, 'cost')}"
    if student >= teacher:
        return f"{share}; it never pays for itself"
    return f"{share}; {_payback(money)}"


def _payback(money: Economics) -> str:
    if money.break_even_requests is None:
        return "what it cost to make is unknown, and so is when it has paid for itself"
    told = f"it has paid for itself after {requests(money.break_even_requests)} requests"
    if money.break_even_days is not None and money.break_even_days > LONG_DAYS:
        told += f", which is {days(money.break_even_days)} at the stated traffic"
    return told


def _unpriced(servings: list[Serving]) -> str:
    teacher, student = (cpu_seconds(servings, role) for role in ("teacher", "student"))
    if not teacher or student is None:
        return "at a cost that is unknown"
    share = ratio_in_words(teacher, student, "CPU time")
    return f"with {share}; a price is missing, so what that saves is unknown"


def cpu_seconds(servings: list[Serving], role: str) -> float | None:
    """CPU-seconds for a thousand requests of the first model in that role."""
    return next((s.cpu_seconds_per_thousand for s in servings if s.role == role), None)
