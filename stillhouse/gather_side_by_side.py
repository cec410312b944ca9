"""Reads some evaluation rows with the answers of all arms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from stillhouse.arms import arm_columns
from stillhouse.distilling import DistillingRecipe, Part
from stillhouse.judging import RATE_ANSWERS
from stillhouse.part_layout import DENSITY, PREDICT_STUDENT, PREDICT_TEACHERS
from stillhouse.report.data import Samples
from stillhouse.report.side_by_side import ArmAnswer, SideBySide
from stillhouse.run_reader import Row, RunReader, sample_step

Scores = dict[tuple[str, str], float]
"""By row and arm."""


def side_by_side(reader: RunReader) -> Samples[SideBySide]:
    """Some rows of every data set that two arms or more have answered in writing."""
    recipe = reader.loaded.recipe
    if not isinstance(recipe, DistillingRecipe):
        return Samples(0, [])
    order = [arm for arms in arm_columns(recipe).values() for arm, _ in arms]
    total, found = 0, []
    for part in recipe.parts():
        by_row = answers_by_row(reader, part)
        total += len(by_row)
        step = sample_step(len(by_row) * len(recipe.parts()))
        scores = _scores(reader, part) if by_row else {}
        for row_id in list(by_row)[::step]:
            rows = sorted(by_row[row_id], key=lambda row: order.index(row["model"]))
            found.append(_row(part.name or recipe.name, rows, scores))
    return Samples(total, found)


def answers_by_row(reader: RunReader, part: Part) -> dict[str, list[Row]]:
    """The written answers to each row, of rows that more than one arm has answered."""
    found: dict[str, list[Row]] = defaultdict(list)
    for stage in reader.layout:
        of_part = stage.inputs.get("rows") == part.stage("evaluation")
        if stage.run in (PREDICT_TEACHERS, PREDICT_STUDENT) and of_part:
            for row in reader.rows(stage.name):
                if "text" in row:  # a student that chooses writes nothing
                    found[row["id"]].append(row)
    return {row_id: rows for row_id, rows in found.items() if len(rows) > 1}


def _scores(reader: RunReader, part: Part) -> Scores:
    """Entity densities and mean ratings."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for key, score in [*_densities(reader, part), *_ratings(reader, part)]:
        values[key].append(score)
    return {key: fmean(listed) for key, listed in values.items()}


def _densities(reader: RunReader, part: Part) -> Iterable[tuple[tuple[str, str], float]]:
    for stage in reader.stages(DENSITY):
        if stage.inputs["rows"] == part.stage("evaluation"):
            for row in reader.rows(stage.name):
                yield (row["id"], row["model"]), row["score"]


def _ratings(reader: RunReader, part: Part) -> Iterable[tuple[tuple[str, str], float]]:
    recipe = reader.loaded.recipe
    assert isinstance(recipe, DistillingRecipe)
    wanted = part.stage(f"rate-{recipe.rating_judge(part)}")
    for stage in reader.stages(RATE_ANSWERS):
        if stage.name == wanted:
            for row in reader.rows(stage.name):
                yield (row["item"], row["model"]), row["rating"]


def _row(dataset: str, rows: list[Row], scores: Scores) -> SideBySide:
    first = rows[0]
    return SideBySide(
        dataset=dataset,
        turns=first["turns"] or [first["question"]],
        answer=first["answer"],
        arms=[
            ArmAnswer(
                arm=row["model"],
                replies=row["replies"] or [row["text"]],
                predicted=row["predicted"] if row["predicted"] != row["text"].strip() else None,
                right=row["right"],
                score=scores.get((row["id"], row["model"])),
            )
            for row in rows
        ],
    )
