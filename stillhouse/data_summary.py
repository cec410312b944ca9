"""The end of a run of teachers' answers on the terminal: a line for each teacher and student."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from core.run import Run
from stillhouse.report.answered import answered
from stillhouse.report.arms import MEASURES, ArmTable, in_words
from stillhouse.report.assistance import Assistance
from stillhouse.report.teacher_data import TeacherDataReport
from stillhouse.report.wording import between, count, money, number, percent, signed_points


def data_summary(data: TeacherDataReport, run: Run) -> Group:
    """A table of the teachers, what was rejected for which reason, and the one sentence."""
    parts = [_teachers(data)] if data.teachers else []
    parts += [_training_rows(data)] if data.training_rows else []
    parts += [_assistance(data.assistance)] if data.assistance else []
    parts += [_judged(data)] if data.judged else []
    parts += [_arms(table, data.currency) for table in data.arms if not data.judged]
    reasons = [f"{count(n)} {reason}" for reason, n in data.rejected_by_reason.items()]
    stage = data.training_rows[0].stage if data.training_rows else "ask"
    return Group(
        *(line for part in parts for line in (part, "")),
        f"Rejected: {', '.join(reasons) or 'none'}.",
        answered(data).sentence,
        f"Rows: stillhouse rows {run.folder.location} --stage {stage}",
    )


def _teachers(data: TeacherDataReport) -> Table:
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
    return table


def _training_rows(data: TeacherDataReport) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("training rows")
    table.add_column("labels")
    for column in ("answers", "found", "outvoted", "rejected", "rows"):
        table.add_column(column, justify="right", no_wrap=True)
    for made in data.training_rows:
        figures = (made.answers, made.read, made.outvoted, sum(made.rejected.values()), made.rows)
        table.add_row(made.stage, made.labels, *map(count, figures))
    return table


def _assistance(found: Assistance) -> Table:
    """The confidences, and what became of the teacher's labels by them."""
    table = Table(box=None, pad_edge=False)
    table.add_column("confidence of")
    for column in ("answers", "right", "mean", "AUROC"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found.signals:
        share = one.right / one.answers if one.answers else None
        figures = (number(one.mean), number(one.auroc))
        table.add_row(one.name, count(one.answers), percent(share), *figures)
    for name, labels in (("labels, all", found.before), ("labels, learnt", found.after)):
        table.add_row(name, count(labels.labels), percent(labels.precision), "", "")
    return table


def _arms(found: ArmTable, currency: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("data set")
    table.add_column("arm")
    for head in (MEASURES[found.measure], "95% interval", "rows", "no answer", "a thousand"):
        table.add_column(head, justify="right")
    for row in found.rows:
        for column in found.columns:
            score = row.scores.get(column.arm)
            if score is None:
                continue
            low, high = (in_words(end, found.measure) for end in (score.low, score.high))
            table.add_row(
                row.dataset,
                f"{column.model}, {column.head}",
                in_words(score.value, found.measure),
                f"{low} to {high}" if score.low is not None else "",
                count(score.rows),
                count(score.unparsed),
                money(score.per_thousand, currency) if score.tokens_in is not None else "",
            )
    return table


def _judged(data: TeacherDataReport) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("held-out rows")
    columns = ["right", "95% interval", "rows", "no answer", "less teacher", "95% interval"]
    scored = any(one.by_choice for one in data.judged)
    for column in [*columns, *(["by choice"] if scored else [])]:
        table.add_column(column, justify="right", no_wrap=True)
    for one in data.judged:
        points, interval = "", ""
        if one.gap is not None:
            share, (low, high) = one.gap
            points = signed_points(share)
            interval = f"{signed_points(low)} to {signed_points(high)}"
        table.add_row(
            f"{one.role} {one.name}",
            percent(one.score.share),
            between(one.score.low, one.score.high),
            count(one.score.total),
            "" if one.unparsed is None else count(one.unparsed),
            points,
            interval,
            *([percent(one.by_choice.share) if one.by_choice else ""] if scored else []),
        )
    return table
