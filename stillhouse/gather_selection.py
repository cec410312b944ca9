"""Reads the choice of how teachers are asked."""

from __future__ import annotations

from stillhouse.distilling import DistillingRecipe
from stillhouse.report.selection import Candidate, Choice
from stillhouse.run_reader import RunReader

CHOOSE = "pipelines.choosing:choose"


def choices(reader: RunReader) -> list[Choice]:
    """The candidates that were compared, by the measure that they were compared by."""
    recipe = reader.loaded.recipe
    if not isinstance(recipe, DistillingRecipe):
        return []
    found: dict[str, Choice] = {}
    for part in recipe.parts():
        for what in ("sampling", "prompt"):
            stage = part.stage(f"choose-{what}")
            for row in reader.rows(stage):
                rows = reader.manifest(stage).facts["rows"]
                choice = found.setdefault(part.task.measure, Choice(part.task.measure, rows, []))
                choice.candidates.append(
                    Candidate(
                        dataset=part.name or recipe.name,
                        what=what,
                        teacher=row["teacher"],
                        name=row["candidate"],
                        score=row["score"],
                        chosen=row["chosen"],
                    )
                )
    return list(found.values())
