"""Reads what a teaching assistant's run came to into the report."""

from __future__ import annotations

from typing import Any

from core.ledger import total
from stillhouse.report.assistance import Assistance, Labels, Signal
from stillhouse.run_reader import RunReader

DRAW = "pipelines.teacher_budget:draw_warm_up"
ACQUIRE = "pipelines.acquiring:acquire"
TEACH = "pipelines.teaching:teach"


def assistance_of(reader: RunReader) -> Assistance | None:
    """The budget and the signals; None where the run has no assistant, or has not learnt yet."""
    taught = [stage for stage in reader.stages(TEACH) if stage.name == "teach"]
    if not taught:
        return None
    (teach,) = taught
    settings, facts = teach.settings, reader.manifest("teach").facts
    asking = [name for role, name in teach.inputs.items() if role.startswith("answers")]
    acquire = next(iter(reader.stages(ACQUIRE)), None)
    chosen = reader.manifest(acquire.name) if acquire else None
    bought: dict[str, Any] = (
        chosen.facts if chosen else {"candidates": 0, "wanted": 0, "signals": {}}
    )
    assist = reader.loaded.recipe.model_dump()["assist"]
    return Assistance(
        teacher=settings["teacher"],
        assistant=assist["teacher"],
        budget_calls=assist["budget"]["calls"],
        budget_money=assist["budget"]["money"],
        calls=sum(_questions(reader, name) for name in asking),
        money=_money(reader, settings["teacher"], asking),
        warm_up=sum(reader.manifest(stage.name).rows for stage in reader.stages(DRAW)),
        acquired=chosen.rows if chosen else 0,
        chosen_by=acquire.settings["by"] if acquire else "signals",
        candidates=bought["candidates"],
        wanted=bought["wanted"],
        signals=_signals(bought["signals"], facts["teacher"]),
        trust=settings["trust"]["by"],
        before=Labels(**facts["before"]),
        after=Labels(**facts["after"]),
    )


NAMES = {
    "consistency": "the student, in itself",
    "student": "the assistant, in the student",
    "teacher": "the assistant, in the teacher",
}
"""What the report calls the signals."""


def _signals(of_student: dict[str, Any], of_teacher: dict[str, Any] | None) -> list[Signal]:
    found = {**of_student, **({"teacher": of_teacher} if of_teacher else {})}
    return [Signal(name=NAMES[name], **facts) for name, facts in found.items()]


def _questions(reader: RunReader, stage: str) -> int:
    manifest = reader.manifest(stage)
    return manifest.rows + sum(manifest.rejected.values())


def _money(reader: RunReader, teacher: str, stages: list[str]) -> float | None:
    """For all calls: what their tokens come to, or else what the ledger has."""
    model = reader.loaded.recipe.teachers[teacher].model
    usages = [row["usage"] for name in stages for row in reader.rows(name, ["usage"])]
    counted = all(
        usage["tokens_in"] is not None and usage["tokens_out"] is not None for usage in usages
    )
    if model in reader.prices.tokens and counted:
        tokens_in = sum(usage["tokens_in"] for usage in usages)
        tokens_out = sum(usage["tokens_out"] for usage in usages)
        return reader.prices.token_money(model, tokens_in, tokens_out)
    used = (e for e in reader.entries if e.teacher == teacher and e.stage in stages)
    return total(used, reader.prices).money
