"""Runs the stages of a recipe in a run folder, and goes on where an earlier attempt stopped."""

from __future__ import annotations

import fcntl
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import yaml

from core.engine_entry import engine_entry
from core.errors import UseError, WorkError
from core.identity import content_id
from core.ledger import Ledger
from core.models import cache_folder, make_cache, model_folder
from core.prices import PriceBook, read_prices, recipe_prices
from core.recipe import LoadedRecipe, StudentRecipe
from core.recipe_teachers import AnyTeacher
from core.run import Folder, Manifest, Run, StageFolder, explain_write
from core.stage import Progress, StageContext, StageFunction
from core.teacher import Engine
from stillhouse.distilling import LearningRecipe
from stillhouse.engines import Engines
from stillhouse.methods import lay_out, recipe_model
from stillhouse.ray_session import DRIVER_LOG, local_resources, ray_session, runs_here
from stillhouse.spending import Spending
from stillhouse.stages import Fingerprint, Stage, fingerprints, needs_ray, teacher_resources


class Display(Protocol):
    """Shows a run while it goes on."""

    def begin(self, stages: list[str]) -> None:
        """The run has these stages."""
        ...

    def found(self, stage: str, manifest: Manifest) -> None:
        """A stage was done already."""
        ...

    def started(self, stage: str) -> None:
        """A stage begins."""
        ...

    def progress(self, stage: str, progress: Progress) -> None:
        """How far a stage is."""
        ...

    def finished(self, stage: str, manifest: Manifest) -> None:
        """A stage is done."""
        ...

    def warn(self, text: str) -> None:
        """Something went wrong that the outcome does not depend on."""
        ...


@dataclass(frozen=True)
class Plan:
    """A recipe laid out in a run folder."""

    loaded: LoadedRecipe
    run: Run
    stages: list[Stage]
    fingerprints: dict[str, Fingerprint]
    sample_of: Plan | None = None
    """The plan of all rows, where this one is of a sample of them."""

    def folder(self, stage: str) -> StageFolder:
        """Where a stage's work is kept."""
        made = self.fingerprints[stage]
        return self.run.stage(stage, made.work, made.whole)

    def until(self, stage: str) -> list[Stage]:
        """A stage and those that it needs, in their order.

        Raises:
            UseError: The recipe has no such stage.
        """
        by_name = {one.name: one for one in self.stages}
        if stage not in by_name:
            raise UseError(
                f"--until {stage}",
                "the recipe has no such stage.",
                f"It has: {', '.join(by_name)}.",
            )
        needed = {stage}
        for one in reversed(self.stages):
            if one.name in needed:
                needed |= {*one.reads.values()}
        return [one for one in self.stages if one.name in needed]

    def done(self, stage: str) -> Manifest | None:
        """The manifest of a stage that is done as this recipe wants it; otherwise None."""
        return self.folder(stage).manifest()


def plan_run(loaded: LoadedRecipe, run: Run) -> Plan:
    """Lay out a recipe in a run folder; nothing is written.

    Raises:
        UseError: Two stages would have one name, or a file or a model cannot be read.
    """
    stages = lay_out(loaded)
    names = [stage.name for stage in stages]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UseError(
            f"recipe '{loaded.recipe.name}'",
            f"two of its stages would have the name {twice[0]}.",
            "Give the student that it is made from another name.",
        )
    return Plan(loaded, run, stages, fingerprints(stages, loaded, run))


def refuse_other_recipe(plan: Plan) -> None:
    """Refuse a run folder that another recipe has begun.

    Raises:
        UseError: With the keys that differ, old and new, and the stages that would run again.
    """
    state = plan.run.state()
    if state is None:
        return
    changed = [
        stage
        for stage, whole in state["fingerprints"].items()
        if (stage not in plan.fingerprints or plan.fingerprints[stage].whole != whole)
        and plan.run.stage(stage, state["stages"][stage]).begun()
    ]
    if not changed:
        return
    before, now = state["recipe"], plan.loaded.recipe.model_dump(by_alias=True)
    keys = differences(before, now) or [
        "a file that the recipe names, a model, or the prompts or stages that Stillhouse brings"
    ]
    raise UseError(
        plan.run.folder.location,
        "this run was made from another recipe. Changed: " + "; ".join(keys) + ".",
        f"--update runs again what depends on it ({', '.join(changed)}) and keeps the rest; "
        "--run OTHER-FOLDER begins anew.",
    )


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """The keys in which two recipes differ, each as `key: old -> new`."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for name in dict.fromkeys((*before, *now))
            for line in differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if before == now else [f"{key}: {before!r} -> {now!r}"]


STOPPED = "stopped-by-budget.json"
"""File of a run: the budget that has stopped it, and what was said."""

PRICES = "prices.yaml"
"""File of a run: the price book that it was last started with."""


@dataclass
class Workflow:
    """One attempt at a plan."""

    plan: Plan
    display: Display
    stages: list[Stage]
    """Those of the plan that are wanted, each after the ones that it reads."""
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    has_ray: bool = False
    """Whether this process is connected to a cluster already."""
    engines: Engines = field(default_factory=Engines)
    """Those that are open."""
    later: Mapping[str, AnyTeacher] = field(default_factory=dict)
    """Teachers whose engines stay open at the end, for whoever has given them."""

    def run(self) -> None:
        """Run every wanted stage that is not done, and make the plan the run's own.

        Raises:
            StillhouseError: What stopped it; all that was committed stays.
        """
        with lock(self.plan.run):
            self._write_state()
            self.run_stages()

    def run_stages(self) -> None:
        """Run every wanted stage that is not done, in a run that this command has locked.

        Raises:
            StillhouseError: What stopped it; all that was committed stays.
        """
        plan = self.plan
        self.display.begin([stage.name for stage in self.stages])
        pending = []
        for stage in self.stages:
            manifest = plan.done(stage.name)
            if manifest is None:
                pending.append(stage)
            else:
                self.display.found(stage.name, manifest)
        if not pending:
            return
        self._refuse_the_same_budget()
        logs = logs_of(plan.run)
        with ExitStack() as session:
            try:
                for number, stage in enumerate(pending):
                    if self._found_by_a_choice(stage):
                        continue
                    if needs_ray(stage, plan.loaded.recipe) and not self.has_ray:
                        # Only now: a run that asks nothing but endpoints needs no cluster.
                        warn = self.display.warn
                        session.enter_context(ray_session(plan.loaded.recipe, logs, warn))
                        self.has_ray = True
                    self._run_stage(stage, logs)
                    if any(stage.name in later.decisions.values() for later in plan.stages):
                        self._take_in_the_choice()
                    self._close_engines(pending[number + 1 :])
            finally:
                self._close_engines([])

    def _take_in_the_choice(self) -> None:
        """Name the folders of what depends on a choice that has just been made."""
        plan = self.plan
        made = fingerprints(plan.stages, plan.loaded, plan.run)
        self.plan = replace(plan, fingerprints=made)
        self._write_state()

    def _found_by_a_choice(self, stage: Stage) -> bool:
        """Whether a stage was done with what has been chosen, in an earlier form of the recipe."""
        manifest = self.plan.done(stage.name)
        if manifest is not None:
            self.display.found(stage.name, manifest)
        return manifest is not None

    def _run_stage(self, stage: Stage, logs: Path) -> None:
        plan, made = self.plan, self.plan.fingerprints[stage.name]
        self.display.started(stage.name)
        spending = Spending(
            Ledger(plan.run.ledger), plan.loaded.recipe.budget, recipe_prices(plan.loaded)
        )
        stop_where_over(spending)

        def show(progress: Progress) -> None:
            self.display.progress(stage.name, progress)
            if not progress.lanes:  # a stage that asks teachers ends by itself, with its shards
                stop_where_over(spending)

        context = StageContext(
            stage=plan.folder(stage.name),
            recipe=plan.loaded,
            settings={**stage.settings, **stage.extent},
            inputs={role: plan.folder(name) for role, name in stage.reads.items()},
            engine=lambda name: self._engine(name, logs),
            model=model_folder,
            attempt=self.attempt,
            fingerprint=made.whole,
            write_entry=lambda entry: spending.write(entry, made.work),
            show=show,
            over_budget=spending.over,
            logs=logs,
        )
        self._make_room(stage)
        began = time.monotonic()
        try:
            result = load_function(stage.run)(context)
        except WorkError as error:
            if error.place.startswith("budget."):
                self._note_the_budget(error)
            raise
        self._account_idle_engines(stage, context, time.monotonic() - began)
        manifest = context.stage.commit(
            Manifest(
                stage=stage.name,
                fingerprint=made.whole,
                made_from=made.made_from,
                shards=result.shards,
                rows=result.rows,
                rejected=result.rejected,
                facts=result.facts,
            )
        )
        self.display.finished(stage.name, manifest)

    def _note_the_budget(self, error: WorkError) -> None:
        told = {"place": error.place, "cause": error.cause, "mend": error.mend}
        self.plan.run.folder.write_json(STOPPED, {"limits": self._limits(), "error": told})

    def _refuse_the_same_budget(self) -> None:
        """Stop at once where the same budget has stopped the run before.

        What was on its way would be so again, after engines were started for it: a cluster tries
        what has failed several times.

        Raises:
            WorkError: It has.
        """
        folder = self.plan.run.folder
        if folder.has(STOPPED):
            found = folder.read_json(STOPPED)
            if found["limits"] == self._limits():
                raise WorkError(**found["error"])

    def _limits(self) -> str:
        """Which budget it is, at which prices."""
        loaded = self.plan.loaded
        return content_id(loaded.recipe.budget.model_dump(), recipe_prices(loaded).model_dump())

    def _make_room(self, stage: Stage) -> None:
        """Close engines that wait for a later stage where this one does not fit beside them.

        Ray waits without a word for what a cluster does not have. A cluster that others start may
        grow, so only this machine's own is judged.

        Raises:
            UseError: The stage asks for more than there is.
        """
        if not self.has_ray or not runs_here():
            return
        teachers = self.plan.loaded.recipe.teachers
        needed = Counter(stage.holds)
        for name in stage.teachers:
            needed.update(teacher_resources(teachers[name]))
        there = local_resources()
        for kind, amount in needed.items():
            if amount > there[kind]:
                raise UseError(
                    f"stage '{stage.name}'",
                    f"it asks for {amount:g} {kind}s, and this machine has {there[kind]:g}.",
                    "Lower device, replicas or workers in the recipe, or set RAY_ADDRESS to a "
                    "larger cluster.",
                )
        for name, section, _ in self.engines:
            if name in stage.teachers:
                continue
            waiting = teacher_resources(section)
            if any(needed[kind] + waiting.get(kind, 0) > there[kind] for kind in needed):
                self.engines.close(name)
            else:
                needed.update(waiting)

    def _account_idle_engines(self, stage: Stage, context: StageContext, seconds: float) -> None:
        """Engines that wait for a later stage are held at the cost of this one."""
        for name, _, engine in self.engines:
            if name not in stage.teachers:
                now = engine.statistics()
                context.write_entry(engine_entry(context, engine, now, 0, seconds))
                engine.accounted = now

    def _engine(self, name: str, logs: Path) -> Engine:
        return self.engines.get(name, self.plan.loaded, logs)

    def _close_engines(self, still_to_run: list[Stage]) -> None:
        """Give back what no later stage uses."""
        teachers = self.plan.loaded.recipe.teachers
        needed = {name: teachers[name] for stage in still_to_run for name in stage.teachers}
        self.engines.close_all_but({**self.later, **needed})

    def _write_state(self) -> None:
        write_state(self.plan.sample_of or self.plan)


def write_state(plan: Plan) -> None:
    """Make a plan the run's own: what it is read by from here on."""
    recipe = plan.loaded.recipe.model_dump(by_alias=True)
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
    plan.run.folder.write("recipe.yaml", text.encode())
    # A copy, so that a run can be read where the recipe's own files are gone.
    prices = yaml.safe_dump(recipe_prices(plan.loaded).model_dump(), allow_unicode=True)
    plan.run.folder.write(PRICES, prices.encode())
    plan.run.folder.write_json(
        "run.json",
        {
            "name": plan.loaded.recipe.name,
            "method": plan.loaded.recipe.method,
            "recipe": recipe,
            "recipe_folder": str(plan.loaded.folder),
            "stages": {name: made.work for name, made in plan.fingerprints.items()},
            "fingerprints": {name: made.whole for name, made in plan.fingerprints.items()},
        },
    )


def stop_where_over(spending: Spending) -> None:
    """Stop a stage, before or while it runs, where the budget is used up.

    Raises:
        StillhouseError: It is.
    """
    error = spending.over()
    if error is not None:
        raise error


def load_function(name: str) -> StageFunction:
    """Import a stage function by `module:function`."""
    module, _, function = name.partition(":")
    found: StageFunction = getattr(import_module(module), function)
    return found


def logs_of(run: Run) -> Path:
    """Where other libraries' output goes: in the run, or beside the caches for a remote run.

    Raises:
        StillhouseError: It cannot be written there.
    """
    local = run.folder.local
    if local is None:
        logs = cache_folder() / "logs" / content_id(run.folder.location)
        make_cache(logs)
        return logs
    try:
        (local / "logs").mkdir(parents=True, exist_ok=True)
        with (local / "logs" / DRIVER_LOG).open("a"):
            pass
    except OSError as error:
        raise explain_write(str(local / "logs"), error) from error
    return local / "logs"


@contextmanager
def lock(run: Run) -> Iterator[None]:
    """Keep a second process on this machine out of a run.

    Raises:
        UseError: Another process is at work in it.
    """
    local = run.folder.local
    if local is None:
        yield
        return
    run.folder.write("README", b"A Stillhouse run. `stillhouse status` and `report` read it.\n")
    try:
        stream = (local / ".lock").open("w")
    except OSError as error:
        raise explain_write(str(local / ".lock"), error) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UseError(
                str(local), "another process is at work in this run.", "Wait for it, or stop it."
            ) from None
        yield


def open_run(location: str) -> Run:
    """A run that exists.

    Raises:
        UseError: There is none at this place.
    """
    run = Run(Folder(location))
    if run.state() is None:
        raise UseError(location, "there is no run here.", "`stillhouse run RECIPE` makes one.")
    return run


def refuse_without_student(run: Run, what: str) -> None:
    """Refuse a run of a method whose students are not served.

    Raises:
        UseError: It is one.
    """
    recipe = recipe_of(run).recipe
    if not isinstance(recipe, StudentRecipe):
        raise UseError(
            run.folder.location,
            f"a run of method {recipe.method} {what}.",
            "A recipe of another method makes a student that is served.",
        )


def trained_student(run: Run, student: str | None) -> tuple[str, StageFolder]:
    """A student of a run: its name, and the stage that trained it.

    Args:
        run: One that makes students.
        student: Its name in the recipe; the first if absent. One that is trained on each data set
            by itself has the set's name at its end, as its stage has: `NAME-SET`.

    Raises:
        UseError: There is no such student, or it is not trained yet.
    """
    recipe = recipe_of(run).training_recipe
    students = recipe.students
    name = student or next(iter(students))
    if not any(name == one or name.startswith(f"{one}-") for one in students):
        raise UseError(
            f"--student {name}",
            "the recipe has no such student.",
            f"It has: {', '.join(students)}.",
        )
    finished = run.finished_stages()
    trained = finished.get(f"train-{name}")
    parts = recipe.parts() if isinstance(recipe, LearningRecipe) else []
    by_set = [stage for part in parts if (stage := part.stage(f"train-{name}")) in finished]
    if trained is None and by_set:
        raise UseError(
            f"--student {name}",
            "it is trained on each data set by itself.",
            f"Name one of: {', '.join(stage.removeprefix('train-') for stage in by_set)}.",
        )
    if trained is None:
        raise UseError(run.folder.location, f"{name} is not trained yet.", "Finish the run first.")
    return name, trained


def recipe_of(run: Run) -> LoadedRecipe:
    """The resolved recipe that a run was last made from."""
    state = run.state()
    assert state is not None, "the run exists"
    recipe = recipe_model(state["method"]).model_validate(state["recipe"])
    return LoadedRecipe(recipe, Path(state["recipe_folder"]))


def prices_of(run: Run) -> PriceBook:
    """The price book that a run was last started with."""
    return read_prices(run.folder.read(PRICES).decode())
