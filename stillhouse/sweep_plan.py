"""A sweep laid out: the trials with their stages, checked before any of them runs.

All trials are laid out in the one run folder. A stage's folder is named by what decides its rows,
so what two trials have in common is done once, and what differs goes to folders of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.errors import UseError
from core.recipe import TrainingRecipe
from core.recipe_students import Student
from core.recipe_sweep import Sweep
from core.run import Manifest
from stillhouse.stages import Stage
from stillhouse.sweep_book import Load, SweepBook, Trial, read_book
from stillhouse.workflow import Plan, plan_run

SOME = 100
"""Draws among which a key has more than one value."""


@dataclass(frozen=True)
class SweepPlan:
    """A recipe's trials, laid out in its run."""

    base: Plan
    """Of the recipe as it is, or with the values of the best trial so far."""
    sweep: Sweep
    student: str
    plans: dict[int, Plan]
    """Of the trials, by number."""
    book: SweepBook

    @property
    def training(self) -> str:
        """The stage that a trial is run for."""
        return f"train-{self.student}"

    def before_training(self, number: int) -> list[Stage]:
        """The stages that a trial's training is made from."""
        return self.plans[number].until(self.training)[:-1]

    def prepared(self, number: int) -> bool:
        """Whether the rows of a trial's training are there."""
        plan = self.plans[number]
        training = plan.until(self.training)[-1]
        return all(plan.done(name) for name in training.inputs.values())

    def student_of(self, number: int) -> Student:
        """The student as a trial has it."""
        return self.plans[number].loaded.training_recipe.students[self.student]

    def manifest(self, number: int) -> Manifest | None:
        """Of a trial's training, once it is done."""
        return self.plans[number].done(self.training)


def plan_sweep(base: Plan, load: Load, *, update: bool = False) -> SweepPlan:
    """Lay out the sweep of a recipe; nothing is written.

    Args:
        base: The recipe in its run.
        load: The same recipe with other values.
        update: Leave trials aside that the run has of another recipe or space.

    Raises:
        UseError: The recipe has no sweep, or one of its trials is impossible.
    """
    recipe = base.loaded.recipe
    if not isinstance(recipe, TrainingRecipe) or recipe.sweep is None:
        raise UseError(
            f"recipe '{recipe.name}'",
            "it has no section 'sweep', which names the keys to sweep.",
            "Add one, in a recipe of a method that trains students.",
        )
    sweep = recipe.sweep
    student = sweep.student or next(iter(recipe.students))
    training = f"train-{student}"
    plans: dict[str, Plan] = {}
    values: dict[str, dict[str, Any]] = {}
    for drawn in sweep.draw():
        plan = plan_run(load(drawn), base.run)
        # 1 and 1.0 are two values of one training.
        whole = plan.fingerprints[training].whole
        plans.setdefault(whole, plan)
        values.setdefault(whole, drawn)
    trials = [
        Trial(
            number,
            values[whole],
            whole,
            {stage.name: plan.fingerprints[stage.name].work for stage in plan.until(training)},
        )
        for number, (whole, plan) in enumerate(plans.items(), start=1)
    ]
    logarithmic = [key for key, range_ in sweep.space.items() if range_.loguniform]
    book = SweepBook(student, sweep.metric, logarithmic, [], trials)
    by_number = dict(enumerate(plans.values(), start=1))
    found = SweepPlan(base, sweep, student, by_number, book)
    _check_keys(found, load)
    _check_metric(found)
    _check_folders(found)
    _go_on(found, update)
    return found


def _check_keys(plan: SweepPlan, load: Load) -> None:
    """Refuse a key that the training does not depend on: its trials would all be one.

    Raises:
        UseError: Naming it.
    """
    first = plan.book.trials[0]
    some = plan.sweep.model_copy(update={"trials": SOME}).draw()
    for key in plan.sweep.space:
        other = next((values[key] for values in some if values[key] != first.values[key]), None)
        try:
            changed = plan_run(load({**first.values, key: other}), plan.base.run)
        except UseError:  # these values do not go together, and perhaps no trial has them all
            continue
        if changed.fingerprints[plan.training].whole == first.fingerprint:
            raise UseError(
                f"sweep.space, {key}",
                f"{plan.training} does not depend on it: all its values train the same student.",
                "Take it out of the space, or leave its --set out.",
            )


def _check_metric(plan: SweepPlan) -> None:
    """Refuse a metric that no trial has, or that means something else in each of them.

    Raises:
        UseError: Saying which would do.
    """
    students = [plan.student_of(number) for number in plan.plans]
    if any(student.train.validation_share == 0 for student in students):
        raise UseError(
            f"students.{plan.student}.train.validation_share",
            "it is 0, so no rows are held out to compare trials by.",
            "Set it, or take the 0 out of the space.",
        )
    objectives = {student.objective.model_dump_json() for student in students}
    if len(objectives) > 1 and plan.sweep.metric == "validation_loss":
        raise UseError(
            "sweep.metric",
            "the space changes the loss itself, so its values cannot be compared.",
            "Set it to validation_accuracy.",
        )
    made = [
        (
            p.loaded.recipe.seed,
            plan.student_of(number).train.validation_share,
            *(p.fingerprints[name].whole for name in p.until(plan.training)[-1].inputs.values()),
        )
        for number, p in plan.plans.items()
    ]
    if len(set(made)) > 1:
        plan.book.notes.append(
            "The trials were judged on different held-out rows: the swept keys decide which there "
            "are."
        )


def _check_folders(plan: SweepPlan) -> None:
    """Refuse trials that would train from one folder, each on another number of its rows.

    Raises:
        UseError: Naming the stage.
    """
    wanted: dict[tuple[str, str], str] = {}
    for found in plan.plans.values():
        for name in found.until(plan.training)[-1].inputs.values():
            made = found.fingerprints[name]
            if wanted.setdefault((name, made.work), made.whole) != made.whole:
                raise UseError(
                    "sweep.space",
                    f"trials differ in how many rows of stage '{name}' they read, which keeps them "
                    "all in one place.",
                    "Take the number of its rows out of the space.",
                )


def _go_on(plan: SweepPlan, update: bool) -> None:
    """Take over what the run has of these trials.

    Raises:
        UseError: It has trials, and none of them is one of these.
    """
    before = read_book(plan.base.run)
    if before is not None:
        ours = {trial.fingerprint for trial in plan.book.trials}
        begun = [trial for trial in before.trials if trial.state != "waits"]
        if begun and not update and ours.isdisjoint(t.fingerprint for t in before.trials):
            raise UseError(
                plan.base.run.folder.location,
                f"this run has a sweep of another recipe or space, with {len(begun)} trials begun.",
                "--update begins a new one beside what is there; --run OTHER-FOLDER begins anew.",
            )
    plan.book.take_over(before)
    for trial in plan.book.trials:
        manifest = plan.manifest(trial.number)
        if manifest is not None:  # also where the kill came before the book knew
            trial.state, trial.history = "finished", manifest.facts["history"]
        elif trial.state == "finished":  # its folder was deleted
            trial.state = "waits"
