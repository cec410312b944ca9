"""Teacher data alone: any number of teachers answer the rows of a file, in one pass.

inputs ──────┬ curate ─ ask
evaluation ──┘

Without a section `curate`, inputs ─ ask.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.recipe import LoadedRecipe
from core.recipe_section import Section
from stillhouse.asking import (
    AskingRecipe,
    CurateField,
    Inputs,
    ask_stage,
    curate_stage,
    read_file,
)
from stillhouse.stages import Stage


class Evaluation(Section):
    """Rows that a student will be measured on: no teacher is asked about a copy of one."""

    file: str
    """JSONL or Parquet file beside the recipe."""
    field: str | None = None
    """Which of its fields holds the text; the one of `curate.field` if absent."""
    ngram: int = Field(default=8, ge=1)
    """Input rows that share this many words in a row with one of them are dropped, or all of its
    words where it has fewer."""


class CurateInputs(CurateField):
    """Which input rows are worth asking about."""

    evaluation: Evaluation | None = None
    """What input rows are held against."""


class TeacherDataRecipe(AskingRecipe):
    """A recipe of this method."""

    method: Literal["teacher_data"]
    inputs: Inputs
    """The rows that teachers are asked about."""
    curate: CurateInputs | None = None
    """Which of the rows are worth asking about; all if absent."""

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        files = {"inputs.file": self.inputs.file, **super().files()}
        if self.curate is not None and self.curate.evaluation is not None:
            files["curate.evaluation.file"] = self.curate.evaluation.file
        return files


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, TeacherDataRecipe)
    layout = [read_file("inputs", recipe.inputs, recipe.limit)]
    if recipe.curate is not None:
        layout += _curate(recipe.curate)
    return [*layout, ask_stage("ask", recipe, recipe.ask, layout[-1].name)]


def _curate(curate: CurateInputs) -> list[Stage]:
    """Curation, after the reading of the evaluation rows where there are any."""
    found = curate.evaluation
    if found is None:
        return [curate_stage("curate", "inputs", curate, None)]
    compared = {
        "stage": "evaluation",
        "field": found.field or curate.field,
        "ngram": found.ngram,
    }
    return [
        read_file("evaluation", Inputs(file=found.file), None),
        curate_stage("curate", "inputs", curate, compared),
    ]
