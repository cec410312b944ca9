"""The end of a run on the terminal: quality and cost, a line for each model, and the verdict."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from stillhouse.report.data import ReportData, Serving
from stillhouse.report.verdict import verdict
from stillhouse.report.wording import between, money, number, percent


def summary(data: ReportData) -> Group:
    """A table of the measured models, and the one sentence that matters."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in ("right", "95% interval", "p50 ms", "CPU-s/1,000", "cost/1,000"):
        table.add_column(column, justify="right", no_wrap=True)
    servings: dict[str, Serving] = {serving.role: serving for serving in data.servings}
    costs: dict[str, float | None] = {
        "teacher": data.economics.teacher_per_thousand,
        "student": data.economics.student_per_thousand,
    }
    for quality in data.qualities:
        shown = data.comparison and quality.name in (
            data.comparison.teacher,
            data.comparison.student,
        )
        serving = servings.get(quality.role) if shown else None
        table.add_row(
            quality.name,
            percent(quality.score.share),
            between(quality.score.low, quality.score.high),
            number(serving.p50_ms) if serving else "",
            number(serving.cpu_seconds_per_thousand) if serving else "",
            money(costs[quality.role], data.economics.currency) if serving else "",
        )
    found = verdict(data)
    return Group(f"{data.name}: evaluation rows, and requests over HTTP", table, "", found.sentence)
