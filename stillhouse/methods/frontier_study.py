"""The tables of frontier distillation (2410.18588): several data sets, each with all arms.

Every data set has the stages of `stillhouse.distilling_stages`, with its name at their ends. A
student is trained on each by itself, and the report's tables have a row for each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.recipe import LoadedRecipe
from core.recipe_answers import AnswerTask
from core.recipe_prompts import Prompt, as_prompt
from core.recipe_section import Name, Section
from stillhouse.asking import Inputs, prompt_files
from stillhouse.distilling import (
    CurateQuestions,
    DistillingRecipe,
    Evaluation,
    Part,
    resolve_judges,
    resolve_prompts,
    resolve_task,
    resolve_variants,
)
from stillhouse.distilling_stages import stages_of
from stillhouse.stages import Stage


class Dataset(Section):
    """One data set."""

    inputs: Inputs
    """The rows that teachers are asked about, and students learn from."""
    curate: CurateQuestions | None = None
    """Which of the rows are worth asking about; all if absent."""
    task: AnswerTask
    """What students are asked, and what is a good answer."""
    evaluation: Evaluation
    """What models are judged on."""
    prompts: dict[Name, Annotated[str, Field(min_length=1)] | Prompt] = {}
    """By teacher: what it is asked about this set, where that is not what `ask` says."""
    selection: Inputs | None = None
    """Where `select` draws its rows from; from `inputs` if absent."""
    variants: dict[Name, Annotated[str, Field(min_length=1)] | Prompt] = {}
    """By name: what `select` also tries on this set, where that is not what it says itself."""


class FrontierStudyRecipe(DistillingRecipe):
    """A recipe of this method."""

    method: Literal["frontier_study"]
    datasets: dict[Name, Dataset] = Field(min_length=1)
    """By name: the data sets. A prompt of `ask` that is named without a slash is the one of that
    name for the kind of each set's task."""

    def parts(self) -> list[Part]:
        """All data sets."""
        return [
            Part(
                name=name,
                key=f"datasets.{name}.",
                inputs=found.inputs,
                evaluation=found.evaluation,
                curate=found.curate,
                task=found.task,
                prompts={
                    teacher: found.prompts.get(teacher, ask.prompt)
                    for teacher, ask in self.ask.items()
                },
                selection=found.selection,
                variants={
                    key: found.variants.get(key, prompt)
                    for key, prompt in (self.select.prompts if self.select else {}).items()
                },
            )
            for name, found in self.datasets.items()
        ]

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        prompts = {
            f"datasets.{name}.prompts.{teacher}": as_prompt(prompt)
            for name, found in self.datasets.items()
            for teacher, prompt in found.prompts.items()
        }
        return {**prompt_files(prompts), **super().files()}

    @model_validator(mode="after")
    def _prompts_have_teachers(self) -> Self:
        for name, found in self.datasets.items():
            for teacher in found.prompts:
                if teacher not in self.ask:
                    raise ValueError(
                        f"datasets.{name}.prompts has '{teacher}', whom ask does not ask"
                    )
        return self

    def with_prompts(self, folder: Path, place: Callable[[str], str]) -> Self:
        """The same recipe with the texts of its prompts, which each data set has for itself."""
        datasets = {}
        for part in self.parts():
            found = self.datasets[part.name]
            keys = {
                name: f"{part.key}prompts.{name}" if name in found.prompts else f"ask.{name}.prompt"
                for name in self.ask
            }
            prompts = resolve_prompts(part.prompts, part.task, folder, keys, place)
            task = resolve_task(part.task, folder, f"{part.key}task", place)
            variants = resolve_variants(part, folder, place)
            changed = {"task": task, "prompts": prompts, "variants": variants}
            datasets[part.name] = found.model_copy(update=changed)
        judges = resolve_judges(self.judges, folder, place)
        return self.model_copy(update={"datasets": datasets, "judges": judges}).check_prompts(place)


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, FrontierStudyRecipe)
    return [stage for part in recipe.parts() for stage in stages_of(recipe, part)]
