"""Reads the arms of a run into the report's tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from core.ledger import Entry
from core.recipe_teachers import AnyTeacher, RecordedTeacher, Teacher
from stillhouse.arms import arm_columns
from stillhouse.distilling import DistillingRecipe, Part
from stillhouse.gather_judges import ratings
from stillhouse.part_layout import DENSITY, PREDICT_STUDENT, PREDICT_TEACHERS
from stillhouse.report.arms import ArmColumn, ArmRow, ArmScore, ArmTable, mean_interval
from stillhouse.report.intervals import wilson
from stillhouse.report.judges import Rated
from stillhouse.run_reader import Row, RunReader
from stillhouse.stages import Stage


def arm_tables(reader: RunReader) -> list[ArmTable]:
    """A table for each measure of the run's data sets; none before anything was judged."""
    recipe = reader.loaded.recipe
    if not isinstance(recipe, DistillingRecipe):
        return []
    by_measure: dict[str, list[ArmRow]] = {}
    for part in recipe.parts():
        scores = _scores(reader, recipe, part)
        if scores:
            row = ArmRow(part.name or recipe.name, scores)
            by_measure.setdefault(part.task.measure, []).append(row)
    return [
        ArmTable(measure, _columns(recipe, rows), rows)  # type: ignore[arg-type]
        for measure, rows in by_measure.items()
    ]


def _columns(recipe: DistillingRecipe, rows: list[ArmRow]) -> list[ArmColumn]:
    there = {arm for row in rows for arm in row.scores}
    return [
        ArmColumn(arm, model, "teacher" if model in recipe.ask else "student", head)
        for model, arms in arm_columns(recipe).items()
        for arm, head in arms
        if arm in there
    ]


def _scores(reader: RunReader, recipe: DistillingRecipe, part: Part) -> dict[str, ArmScore]:
    """By arm."""
    found: dict[str, ArmScore] = {}
    values, rated = _measured(reader, part), _rated(reader, recipe, part)
    for stage in reader.layout:
        if stage.run not in (PREDICT_TEACHERS, PREDICT_STUDENT):
            continue
        if stage.name not in reader.finished or stage.inputs["rows"] != part.stage("evaluation"):
            continue
        for arm, rows in _by_arm(reader.rows(stage.name)).items():
            if stage.run == PREDICT_TEACHERS:
                name = next(t for t, called in stage.settings["arms"].items() if called == arm)
                paid = _of_teacher(reader, recipe.teachers[name], name, stage.inputs["answers"])
            else:
                paid = _of_student(reader, stage)
            score = _valued(_score(rows, part), values.get(arm))
            if arm in rated:
                one = rated[arm]
                score = replace(score, value=one.mean, low=one.low, high=one.high)
            found[arm] = _priced(score, rows, paid)
    return found


def _by_arm(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["model"], []).append(row)
    return found


def _score(rows: list[Row], part: Part) -> ArmScore:
    unparsed = sum(row.get("predicted", "") is None for row in rows)
    if part.task.measure != "accuracy":
        return ArmScore(None, None, None, len(rows), unparsed)
    # A model that chooses is told by numbers of choices, one that writes by its texts.
    right = sum(
        row["right"] if "right" in row else row["predicted"] == row["answer"] for row in rows
    )
    low, high = wilson(right, len(rows)) or (None, None)
    return ArmScore(right / len(rows), low, high, len(rows), unparsed)


Paid = tuple[RunReader, str, list[Entry], str]
"""Of an arm: its run, the model that tokens are paid for, what the ledger has, the device."""


RECORDED = "recorded"
"""In the place of a device, where answers were there already and nobody knows what they cost."""


def _of_teacher(reader: RunReader, teacher: AnyTeacher, name: str, stage: str) -> Paid:
    if isinstance(teacher, RecordedTeacher):
        return reader, teacher.model, [], RECORDED
    used = [e for e in reader.entries if e.stage == stage and e.teacher == name]
    device = teacher.device.kind if isinstance(teacher, Teacher) else ""
    return reader, teacher.model, used, device


def _of_student(reader: RunReader, stage: Stage) -> Paid:
    used = [e for e in reader.entries if e.stage == stage.name]
    return reader, stage.settings["model"], used, stage.settings["device"]["kind"]


def _priced(score: ArmScore, rows: list[Row], paid: Paid) -> ArmScore:
    """A score with what a row of it took."""
    counted = [row for row in rows if row.get("tokens_in") is not None]
    if not counted:
        return score
    tokens_in = sum(row["tokens_in"] for row in counted) / len(counted)
    tokens_out = sum(row["tokens_out"] for row in counted) / len(counted)
    score = replace(score, tokens_in=tokens_in, tokens_out=tokens_out)
    reader, model, used, device = paid
    by_tokens = reader.prices.thousand_samples(model, tokens_in, tokens_out)
    if by_tokens is not None:
        return replace(score, per_thousand=by_tokens, paid_by="tokens")
    if device == RECORDED:
        return replace(score, paid_by="recorded")
    useful, done = sum(e.useful_seconds for e in used), sum(e.rows for e in used)
    money = reader.prices.device_money(device, useful) if device and done else None
    if money is None:
        return score
    return replace(score, per_thousand=1000 * money / done, paid_by="device time")


def _rated(reader: RunReader, recipe: DistillingRecipe, part: Part) -> dict[str, Rated]:
    """By arm: how the judge rated it that gives the figures of a data set."""
    judge = recipe.rating_judge(part)
    stage = part.stage(f"rate-{judge}")
    if part.task.measure != "judge" or judge is None or stage not in reader.finished:
        return {}
    return {one.arm: one for one in ratings(reader.rows(stage), recipe.judges[judge].scale)}


def _measured(reader: RunReader, part: Part) -> dict[str, list[float]]:
    """By arm: the values of its rows, by a metric that is no comparison with a right answer."""
    found: dict[str, list[float]] = {}
    for stage in reader.stages(DENSITY):
        if stage.inputs["rows"] == part.stage("evaluation"):
            for row in reader.rows(stage.name):
                found.setdefault(row["model"], []).append(row["score"])
    return found


def _valued(score: ArmScore, values: list[float] | None) -> ArmScore:
    """A score with the mean of such values, where there are any."""
    if not values:
        return score
    low, high = mean_interval(values, least=0.0) or (None, None)
    return replace(score, value=sum(values) / len(values), low=low, high=high)
