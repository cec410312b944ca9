"""The end of a run of teacher data on the terminal: a line for each teacher."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from core.run import Run
from stillhouse.report.answered import answered
from stillhouse.report.teacher_data import TeacherDataReport
from stillhouse.report.wording import count, money, number, percent


def data_summary(data: TeacherDataReport, run: Run) -> Group:
    """A table of the teachers, what was rejected for which reason, and the one sentence."""
    table = Table(box=None, pad_edge=False)
    table.add_column("teacher")
    has_logits = any(teacher.logits for teacher in data.teachers)
    columns = ["answers", "cut", "tokens in", "cached", "tokens out", "tokens/s"]
    for column in [*columns, *(["bytes/token"] if has_logits else []), "cost"]:
        table.add_column(column, justify="right", no_wrap=True)
    for teacher in data.teachers:
        logits = teacher.logits
        kept = number(logits.stored_per_token) if logits else ""
        table.add_row(
            teacher.name,
            count(teacher.answered),
            count(teacher.cut),
            count(teacher.used.tokens_in),
            percent(teacher.cached) if teacher.cached is not None else "",
            count(teacher.used.tokens_out),
            number(teacher.tokens_per_second),
            *([kept] if has_logits else []),
            money(teacher.money, data.currency),
        )
    reasons = [f"{count(n)} {reason}" for reason, n in data.rejected_by_reason.items()]
    return Group(
        table,
        "",
        f"Rejected: {', '.join(reasons) or 'none'}.",
        answered(data).sentence,
        f"Rows: stillhouse rows {run.folder.location} --stage ask",
    )
