"""Which rows are put to the teacher once the student is warmed up (2406.05322; the rule is ours).

A row is worth the more, the less the student agrees with itself on it and the less the assistant
trusts what it came to (`pipelines.signals.doubt`). A student without any answer to a row trusts
none of itself, and nobody needs to assess that: both signals are 0. A row whose answer the
assistant could not assess is left out where its confidence counts: what is not known of a row does
not buy it. Of equal rows those that a draw puts first are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from core.rows import INPUT
from core.stage import StageContext, StageResult
from pipelines.drawing import drawing_number
from pipelines.questions import each
from pipelines.row_work import rejected_table
from pipelines.signals import auroc, doubt
from pipelines.teacher_budget import (
    WARM_UP,
    Call,
    affordable,
    dearest_rows,
    rows_left,
)


def acquire(context: StageContext) -> StageResult:
    """Stage: the rows that the rest of the budget is spent on, the most doubtful ones first.

    Settings: `by`, `signals` or `random`; `consistency` and `student`, their weights; `call`, a
    `pipelines.teacher_budget.Call` as a dictionary; `calls` or `money`, the whole budget; `seed`.
    Inputs: `taught` and `answers`, the rows of the warm-up and what the teacher answered to them,
    where there was one; `sampled`, rows of `core.rows.SAMPLED`, and `assessed`, of
    `core.rows.ASSESSED`, where `signals` decide; otherwise `rows`, all input rows.
    """
    settings, call = context.settings, Call(**context.settings["call"])
    signals = settings["by"] == "signals"
    places = sorted(_by_doubt(context) if signals else _by_chance(context))
    source = context.inputs["sampled" if signals else "rows"]
    taught = context.inputs.get("taught")
    before = sum(table.num_rows for table in taught.iter_shards(["id"])) if taught else 0
    if settings["money"] is not None and not before:
        costs = dearest_rows(context, each(source), call)
        wanted = affordable((costs[row_id] for _, _, row_id in places), settings["money"])
    else:
        wanted = rows_left(context, call, before, context.inputs.get("answers"))
    order = {row_id: number for number, (_, _, row_id) in enumerate(places[:wanted])}
    rows = {row["id"]: row for row in each(source) if row["id"] in order}
    listed = [{name: rows[row_id][name] for name in INPUT.names} for row_id in order]
    nothing = rejected_table(context.stage.stage, [])
    context.stage.commit_shard("rows", pa.Table.from_pylist(listed, schema=INPUT), nothing)
    facts = {"candidates": len(places), "wanted": wanted, "signals": _signals(context)}
    return StageResult(["rows"], len(listed), facts=facts)


Place = tuple[float, str, str]
"""Where a row stands among the others: its doubt below 0, its number in a draw, and its id."""


def _by_doubt(context: StageContext) -> Iterator[Place]:
    settings = context.settings
    assessed = _confidences(context)
    for row in each(context.inputs["sampled"]):
        sure = 0.0 if row["answer"] is None else assessed.get(row["id"])
        if settings["student"] and sure is None:
            continue
        own, other = settings["consistency"], settings["student"]
        found = doubt([(own, row["consistency"]), (other, sure or 0.0)])
        yield -found, drawing_number(row["id"], settings["seed"], WARM_UP), row["id"]


def _by_chance(context: StageContext) -> Iterator[Place]:
    taught = context.inputs.get("taught")
    seen = {row["id"] for row in each(taught)} if taught else set()
    for row in each(context.inputs["rows"]):
        if row["id"] not in seen:
            seen.add(row["id"])
            yield 0.0, drawing_number(row["id"], context.settings["seed"], WARM_UP), row["id"]


def _confidences(context: StageContext) -> dict[str, float]:
    """By the row's id: how sure the assistant is of the student's answer."""
    assessed = context.inputs.get("assessed")
    return {row["item"]: row["confidence"] for row in each(assessed)} if assessed else {}


def _signals(context: StageContext) -> dict[str, Any]:
    """How well each signal tells the student's right answers from its wrong ones."""
    sampled = context.inputs.get("sampled")
    if sampled is None:
        return {}
    known = [row for row in each(sampled) if row["right"] is not None]
    found = {"consistency": judged([(row["consistency"], row["right"]) for row in known])}
    if "assessed" in context.inputs:
        sure = _confidences(context)
        pairs = [(sure[row["id"]], row["right"]) for row in known if row["id"] in sure]
        found["student"] = judged(pairs)
    return found


def judged(pairs: list[tuple[float, bool]]) -> dict[str, Any]:
    """What the report tells of a confidence: answers, those that are right, and the AUROC.

    Args:
        pairs: The confidence in each answer, and whether it is right.
    """
    confidences, right = [c for c, _ in pairs], [r for _, r in pairs]
    return {
        "answers": len(pairs),
        "right": sum(right),
        "mean": sum(confidences) / len(pairs) if pairs else None,
        "auroc": auroc(confidences, right),
    }
