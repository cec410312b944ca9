"""The page on teacher data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

from stillhouse.report import wording
from stillhouse.report.answered import answered
from stillhouse.report.data import Histogram
from stillhouse.report.rendering import (
    QUESTION,
    ablation_figure,
    environment,
    listed,
    page,
    rejected_texts,
    sweep_figures,
)
from stillhouse.report.side_by_side import SideBySide
from stillhouse.report.teacher_data import AskedRow, TeacherDataReport

CONTENTS = ["Cost", "Answers", "Rejected", "Rows", "Provenance"]

STUDENTS, SERVING, JUDGES = "Students", "Serving", "Judges"
"""The sections of a run that trains some, that has compared them with their teachers, and that asks
judges."""

SWEEP, ABLATIONS = "Sweep", "Ablations"
"""Those of a run that has tried several values, and several variants."""

MOST_HISTOGRAMS = 8
"""Teachers whose lengths are drawn."""

ANSWER = 1_500
"""Characters that are shown of an answer and of a prompt."""


def render_teacher_data(data: TeacherDataReport) -> str:
    """The report as one self-contained HTML document."""
    return page(
        environment(data.currency),
        "teacher_data.html.j2",
        data=data,
        verdict=answered(data),
        contents=_contents(data),
        teachers=_priced(data),
        time=_time(data),
        held=data.total.device_seconds > 0,
        figures={
            "seconds": _seconds(data),
        },
        sweep_figures=sweep_figures(data.sweep),
        ablation_figure=ablation_figure(data.ablations),
        search_figure=_search(data),
        compared=_compared(data),
        lengths=[
            (teacher.name, bars(teacher.lengths.histogram))
            for teacher in data.teachers[:MOST_HISTOGRAMS]
            if teacher.lengths
        ],
        shows_arms=shows_arms(data),
        has_judges=has_judges(data),
        has_logits=any(teacher.logits for teacher in data.teachers),
        rejections=_rejections(data),
        rejected=listed(data.rejected, rejected_texts, lambda row: row.reason),
        rows=listed(data.rows, _texts, fate),
        beside=listed(data.side_by_side, _beside_texts, lambda row: row.dataset),
        fate=fate,
        longest_answer=ANSWER,
    )


def _search(data: TeacherDataReport) -> Any:
    """The plot of the search for a prompt, where there was one."""
    if data.prompt_search is None:
        return None
    from stillhouse.report.prompt_search_figures import score_by_round  # loads matplotlib

    return score_by_round(data.prompt_search)


def shows_arms(data: TeacherDataReport) -> bool:
    """Whether the tables of arms say more than the table of how right every model is."""
    columns = sum(len(table.columns) for table in data.arms)
    return columns > len(data.judged) or any(len(table.rows) > 1 for table in data.arms)


def has_judges(data: TeacherDataReport) -> bool:
    """Whether anybody but the right answers has judged: models, people or a harness."""
    return bool(data.judges or data.people or data.complexities or data.harness)


def _contents(data: TeacherDataReport) -> list[str]:
    students = [STUDENTS] if data.training_rows else []
    judges = [JUDGES] if has_judges(data) else []
    sweep = [SWEEP] if data.sweep else []
    serving = [SERVING] if data.compared else []
    ablations = [ABLATIONS] if data.ablations else []
    return [*CONTENTS[:2], *students, *serving, *judges, *sweep, *ablations, *CONTENTS[2:]]


def _compared(data: TeacherDataReport) -> list[tuple[Any, dict[str, Any], str]]:
    """Students beside their teachers, each with its plots and its share of CPU time in words."""
    if not data.compared:
        return []
    from stillhouse.report import figures, serving_figures  # loads matplotlib
    from stillhouse.report.page import cpu_ratio

    return [
        (
            one,
            {
                "latency": figures.latency(one.servings),
                "rates": serving_figures.rates(one.servings),
                "cascade": serving_figures.cascade(one.cascade) if one.cascade else None,
            },
            cpu_ratio(one.servings),
        )
        for one in data.compared
    ]


def _seconds(data: TeacherDataReport) -> Any:
    """The plot of device-seconds, where any teacher holds a device."""
    if not data.total.device_seconds:
        return None
    from stillhouse.report import figures  # loads matplotlib

    teachers = [(teacher.name, teacher.used) for teacher in data.teachers]
    students = [(student.name, student.used) for student in data.trainings]
    return figures.device_seconds("seconds", [*teachers, *students])


@dataclass(frozen=True)
class Bar:
    """Of a histogram of whole numbers."""

    least: int
    most: int
    """Both belong to it."""
    count: int
    height: float
    """As a share of the highest."""


def bars(histogram: Histogram) -> list[Bar]:
    """What the page's style sheet draws a histogram of; the edges lie half-way between numbers."""
    highest = max(histogram.counts)
    return [
        Bar(math.ceil(left), math.floor(right), count, count / highest)
        for (left, right), count in zip(pairwise(histogram.edges), histogram.counts, strict=True)
    ]


def fate(row: AskedRow) -> str:
    """Under which word a row is found on the page."""
    if any(asked.rejections for asked in row.asked):
        return "with a rejected answer"
    if any(answer.finish == "length" for asked in row.asked for answer in asked.answers):
        return "with a cut answer"
    return "answered in full"


def _priced(data: TeacherDataReport) -> list[tuple[Any, str]]:
    """The teachers, each with its money in the words of one column."""
    column = wording.money_column([t.money for t in data.teachers], data.currency)
    return list(zip(data.teachers, column, strict=True))


def _time(data: TeacherDataReport) -> dict[str, Any]:
    """In what device-time is told: seconds of a small run, hours of a large one."""
    large = data.total.device_seconds >= 7200
    return {"unit": "hours", "seconds": 3600} if large else {"unit": "seconds", "seconds": 1}


def _rejections(data: TeacherDataReport) -> list[tuple[str, str, str, int]]:
    """Stage, teacher, reason and number of rejected rows, most frequent first."""
    found = [("ask", t.name, *pair) for t in data.teachers for pair in t.rejected.items()]
    steps = (*data.steps, *data.later)
    found += [(step.stage, "", *pair) for step in steps for pair in step.rejected.items()]
    return sorted(found, key=lambda row: -row[3])


def _beside_texts(row: SideBySide) -> Iterable[str]:
    yield from (turn[:QUESTION] for turn in row.turns)
    for one in row.arms:
        yield from (reply[:ANSWER] for reply in one.replies)


def _texts(row: AskedRow) -> Iterable[str]:
    for text in chain(row.fields, row.fields.values()):
        yield text[:QUESTION]
    for asked in row.asked:
        yield (asked.prompt or "")[:ANSWER]
        yield from (text[:QUESTION] for text in asked.rejections)
        yield from (answer.text[:ANSWER] for answer in asked.answers)
