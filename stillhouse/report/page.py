"""The page on a student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment

from core.ledger import total
from core.prices import PriceBook
from stillhouse.report import figures, serving_figures, wording
from stillhouse.report.data import Answer, ReportData, Serving, StageCost, TrainingRow
from stillhouse.report.rendering import (
    QUESTION,
    WORDS,
    ablation_figure,
    cut,
    environment,
    listed,
    page,
    rejected_texts,
    sweep_figures,
)
from stillhouse.report.verdict import cpu_seconds, ratio_in_words, verdict

CONTENTS = ["Task", "Quality", "Cost", "Serving", "Data", "Training", "Rows", "Provenance"]

SWEEP, ABLATIONS = "Sweep", "Ablations"
"""The sections of a run that has some, before the rows."""

MOST_BARS = 6
"""Choices of one soft label that are shown, the likeliest first."""

MOST_CHOICES = 20
"""Choices up to which the confusion matrix is a matrix that can be read."""

SHADES = ("first", "second", "third")
"""Classes of the colours of stacked bars, as `figures.SHADES`."""

MOST_TRAININGS = 6
"""Students whose curves are shown."""


@dataclass(frozen=True)
class Bar:
    """A choice's probability in a soft label."""

    name: str
    share: float
    right: bool
    """Whether it is the row's answer."""


@dataclass(frozen=True)
class Confused:
    """Answers of one wrong kind."""

    right: int
    given: int
    count: int


def render(data: ReportData) -> str:
    """The report as one self-contained HTML document."""
    return page(
        _environment(data),
        "page.html.j2",
        data=data,
        verdict=verdict(data),
        contents=_contents(data),
        cost_ratio=_cost_ratio(data),
        figures=_figures(data),
        sweep_figures=sweep_figures(data.sweep),
        ablation_figure=ablation_figure(data.ablations),
        **_stage_costs(data),
        cpu_ratio=cpu_ratio(data.servings),
        way_keys=_way_keys(data),
        confused=_confused(data),
        rows_of_subject=lambda name: max(
            quality.by_subject[name].total
            for quality in data.qualities
            if name in quality.by_subject
        ),
        matrix=data.confusion is not None and len(data.choices) <= MOST_CHOICES,
        rejections=_rejections(data),
        kept=listed(data.kept, _training_texts, lambda row: row.source),
        rejected=listed(data.rejected, rejected_texts, lambda row: row.reason),
        disagreements=listed(data.disagreements, _answer_texts, lambda row: str(row.answer)),
        mistakes=listed(data.mistakes, _answer_texts, lambda row: str(row.answer)),
    )


def _contents(data: ReportData) -> list[str]:
    sweep = [SWEEP] if data.sweep else []
    ablations = [ABLATIONS] if data.ablations else []
    return [*CONTENTS[:-2], *sweep, *ablations, *CONTENTS[-2:]]


def _environment(data: ReportData) -> Environment:
    def choice(index: int | None, own: Sequence[str] | None = None) -> str:
        names = own or data.choices
        known = index is not None and 0 <= index < len(names)
        return cut(names[index], WORDS) if known and index is not None else wording.UNKNOWN

    def bars(
        probabilities: Sequence[float] | None, answer: int | None, own: Sequence[str] | None
    ) -> list[Bar]:
        ranked = sorted(enumerate(probabilities or []), key=lambda pair: -pair[1])
        if len(ranked) <= MOST_BARS:
            ranked.sort()  # few enough for the order that every row has
        return [Bar(choice(i, own), share, i == answer) for i, share in ranked[:MOST_BARS]]

    made = environment(data.economics.currency)
    made.filters.update(bars=bars, choice=choice)
    return made


def _figures(data: ReportData) -> dict[str, Any]:
    student, teacher = data.student, data.teacher
    both = student is not None and teacher is not None
    return {
        "headline": figures.headline(student, teacher) if both and student and teacher else None,
        "quality": figures.qualities(data.qualities),
        "difficulty": figures.difficulty(data.qualities),
        "choices": figures.choices(student, teacher, data.choices)
        if student and data.choices
        else None,
        "stages": figures.stages(data.stages),
        "latency": figures.latency(data.servings),
        "rates": serving_figures.rates(data.servings),
        "cascade": serving_figures.cascade(data.cascade) if data.cascade else None,
        "break_even": figures.break_even(data.economics),
        "funnel": figures.funnel(data.ways),
        "balance": figures.balance(data.balance, data.choices),
        "confidence": figures.confidence(data.confidence) if data.confidence else None,
        "trainings": [
            (run, figures.training(run, i)) for i, run in enumerate(data.trainings[:MOST_TRAININGS])
        ],
    }


def _cost_ratio(data: ReportData) -> str:
    """Student's cost of a request beside the teacher's, in words."""
    teacher = data.economics.teacher_per_thousand
    student = data.economics.student_per_thousand
    if teacher is None or student is None:
        return wording.UNKNOWN
    return ratio_in_words(teacher, student, "cost")


def cpu_ratio(servings: list[Serving]) -> str:
    """Student's CPU time of a request beside the teacher's, in words."""
    teacher, student = (cpu_seconds(servings, role) for role in ("teacher", "student"))
    return ratio_in_words(teacher, student, "CPU time") if teacher and student else wording.UNKNOWN


def _way_keys(data: ReportData) -> list[tuple[str, str]]:
    """Legend of the funnel: the class of a colour, and what it stands for."""
    names = [way.name for way in data.ways]
    if len(names) > len(SHADES):
        names = [*names[: len(SHADES) - 1], "other ways"]
    return list(zip(SHADES, names, strict=False))


def _stage_costs(data: ReportData) -> dict[str, Any]:
    """The stages and their sums, their money in the words of one column; and what was cached."""
    kinds = (("Making the student", True), ("Measuring it", False))
    parts = [(title, [s for s in data.stages if s.making == making]) for title, making in kinds]
    sums = [(title, _sum(part)) for title, part in parts if part]
    every = [stage.money for stage in data.stages] + [stage.money for _, stage in sums]
    column = wording.money_column(every, data.economics.currency)
    tokens = sum(stage.entry.tokens_in for stage in data.stages)
    cached = sum(stage.entry.tokens_cached for stage in data.stages)
    return {
        "cached": cached / tokens if tokens else None,
        "stages": list(zip(data.stages, column, strict=False)),
        "sums": list(zip(sums, column[len(data.stages) :], strict=True)),
    }


def _sum(stages: Sequence[StageCost]) -> StageCost:
    costs = [stage.money for stage in stages]
    known = [cost for cost in costs if cost is not None]
    # The money is in the stages already: a book without prices only adds up the rest.
    entry = total((stage.entry for stage in stages), PriceBook(currency="XXX")).entry
    # One unknown price makes the sum unknown, never too small.
    money = sum(known) if len(known) == len(costs) else None
    return StageCost(entry, sum(s.attempts for s in stages), money, stages[0].making)


def _confused(data: ReportData) -> list[Confused]:
    """The student's most frequent wrong answers."""
    if data.confusion is None:
        return []
    pairs = [
        Confused(right, given, count)
        for right, row in enumerate(data.confusion.counts[: len(data.choices)])
        for given, count in enumerate(row[: len(data.choices)])
        if right != given and count
    ]
    return sorted(pairs, key=lambda pair: -pair.count)[:10]


def _rejections(data: ReportData) -> dict[str, Any]:
    """Rejected rows by reason, with a column for each way of generating."""
    ways = list(dict.fromkeys(r.way for r in data.rejections))
    ways.sort(key=lambda way: way == "")  # rows that no teacher wrote come last
    reasons: dict[tuple[str, str], dict[str, int]] = {}
    for r in data.rejections:
        counts = reasons.setdefault((r.stage, r.reason), {})
        counts[r.way] = counts.get(r.way, 0) + r.count
    ranked = sorted(reasons.items(), key=lambda item: -sum(item[1].values()))
    rows = [(stage, reason, counts) for (stage, reason), counts in ranked]
    most = max((sum(counts.values()) for *_, counts in rows), default=0)
    return {"ways": ways, "rows": rows, "most": most}


def _training_texts(row: TrainingRow) -> Iterable[str]:
    return (row.question[:QUESTION], row.source)


def _answer_texts(row: Answer) -> Iterable[str]:
    return (row.question[:QUESTION],)
