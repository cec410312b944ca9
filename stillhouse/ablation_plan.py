"""An ablation laid out: a cell for each variant and seed, checked before any of them runs.

All cells are laid out in the one run folder. A stage's folder is named by what decides its rows, so
what cells have in common is done once, and what a variant changes goes to folders of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import UseError
from core.recipe import TrainingRecipe
from core.recipe_ablation import AS_IT_IS, Ablation
from core.run import StageFolder
from stillhouse.stages import Stage
from stillhouse.sweep_book import Load, best_values
from stillhouse.workflow import Plan, plan_run


@dataclass(frozen=True)
class Cell:
    """A variant with a seed."""

    variant: str
    seed: int
    plan: Plan
    predicts: str
    """The stage whose rows the cell is judged by: the student's answers to the evaluation rows."""

    @property
    def name(self) -> str:
        """For people."""
        return f"'{self.variant}' with seed {self.seed}"

    @property
    def stages(self) -> list[Stage]:
        """What it takes, in order."""
        return self.plan.until(self.predicts)

    @property
    def asking(self) -> list[Stage]:
        """Of these, those that ask teachers, and what they need."""
        stages = self.stages
        asked = {s.name for one in stages if one.teachers for s in self.plan.until(one.name)}
        return [stage for stage in stages if stage.name in asked]

    @property
    def fingerprint(self) -> str:
        """Of its answers, with all that they are made from."""
        return self.plan.fingerprints[self.predicts].whole

    @property
    def done(self) -> bool:
        """Whether its answers are there."""
        return self.plan.done(self.predicts) is not None

    @property
    def answers(self) -> StageFolder:
        """Where they are."""
        return self.plan.folder(self.predicts)

    def left(self, stages: list[Stage]) -> list[Stage]:
        """Of some stages, those that are not done."""
        return [stage for stage in stages if self.plan.done(stage.name) is None]


@dataclass(frozen=True)
class AblationPlan:
    """A recipe's cells, laid out in its run."""

    base: Plan
    """Of the recipe as it is, with its own seed."""
    ablation: Ablation
    student: str
    cells: list[Cell]
    """All variants with the first seed, then with the next one."""


def plan_ablation(base: Plan, load: Load) -> AblationPlan:
    """Lay out the ablation of a recipe; nothing is written.

    Args:
        base: The recipe in its run.
        load: The same recipe with other values.

    Raises:
        UseError: The recipe has no ablation, or one of its cells is impossible.
    """
    recipe = base.loaded.recipe
    if not isinstance(recipe, TrainingRecipe) or recipe.ablate is None:
        raise UseError(
            f"recipe '{recipe.name}'",
            "it has no section 'ablate', which names the variants to compare.",
            "Add one, in a recipe of a method that trains students.",
        )
    ablation = recipe.ablate
    student = ablation.student or next(iter(recipe.students))
    values = best_values(base, load)

    def cell(variant: str, changes: Mapping[str, Any], seed: int) -> Cell:
        try:
            loaded = load(values, {**changes, "seed": seed})
            plan = plan_run(loaded, base.run)
        except UseError as error:
            raise UseError(
                f"ablate.variants, '{variant}' with seed {seed}",
                f"it is impossible. {error.place}: {error.cause}",
                error.mend,
            ) from None
        predicts = _predicting(plan, student, variant)
        if ablation.judged_by == "choice" and not predicts.settings.get("score_choices", True):
            raise UseError(
                "ablate.judged_by",
                f"the choices of {student} are not scored.",
                "Set evaluation.score_choices, or judge by the answer.",
            )
        return Cell(variant, seed, plan, predicts.name)

    variants = {AS_IT_IS: {}, **ablation.variants}
    cells = [
        cell(variant, changes, seed)
        for seed in ablation.seeds
        for variant, changes in variants.items()
    ]
    _check_variants(cells, student)
    return AblationPlan(base, ablation, student, cells)


def _predicting(plan: Plan, student: str, variant: str) -> Stage:
    """The stage that has a student answer the evaluation rows.

    Raises:
        UseError: There is none.
    """
    found = next((stage for stage in plan.stages if stage.predicts == student), None)
    if found is None:
        raise UseError(
            f"ablate.variants, '{variant}'",
            f"nothing tells how good {student} is: it answers no evaluation rows.",
            "Name evaluation rows with right answers in the recipe.",
        )
    return found


def _check_variants(cells: list[Cell], student: str) -> None:
    """Refuse a variant that changes nothing: all of its differences would be 0.

    Raises:
        UseError: Naming it.
    """
    as_they_are = {cell.seed: cell.fingerprint for cell in cells if cell.variant == AS_IT_IS}
    for cell in cells:
        if cell.variant != AS_IT_IS and cell.fingerprint == as_they_are[cell.seed]:
            raise UseError(
                f"ablate.variants, '{cell.variant}'",
                f"{student} is the same without it: nothing that it changes decides how the "
                "student is made.",
                "Check the keys and the values, or take the variant out.",
            )
