"""A run's student and its teacher as they are compared, for an endpoint that serves both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from core.errors import UseError
from core.models import model_folder
from core.recipe import LoadedRecipe
from core.run import Run
from core.stage import StageContext
from stillhouse.methods import lay_out
from stillhouse.stages import Stage
from stillhouse.workflow import plan_run, recipe_of


def teacher_answers(loaded: LoadedRecipe, student: str) -> bool:
    """Whether a student's teacher can be served beside it, and answers what it is asked.

    Args:
        loaded: The run's recipe.
        student: Its name in the recipe.
    """
    stage = next((one for one in lay_out(loaded) if one.name == f"compare-{student}"), None)
    return stage is not None and bool(_method(stage).TEACHER_CHOOSES)


def _method(stage: Stage) -> Any:
    return import_module(stage.run.partition(":")[0])


@contextmanager
def both_sides(run: Run, student: str, logs: Path) -> Iterator[Mapping[str, Any]]:
    """Start the teacher, and describe both: `serving.compared.Compared` by role.

    Args:
        run: That made the student; its teacher has answered the evaluation rows.
        student: Its name in the recipe.
        logs: Folder for the engine's output.

    Raises:
        UseError: No teacher of the recipe can be served, or the run is not that far.
    """
    from pipelines.teachers import open_teacher

    plan = plan_run(recipe_of(run), run)
    stage = next((one for one in plan.stages if one.name == f"compare-{student}"), None)
    if stage is None or not _method(stage).TEACHER_CHOOSES:
        raise UseError(
            run.folder.location,
            "no teacher of this recipe can answer beside the student.",
            "One that scores choices can, on vLLM or behind an endpoint; recorded answers cannot, "
            "nor one whose prompt needs more than a question.",
        )
    missing = [name for name in stage.inputs.values() if plan.done(name) is None]
    if missing:
        raise UseError(
            run.folder.location, f"{', '.join(missing)} is not done yet.", "Finish the run first."
        )
    engines: dict[str, Any] = {}

    def engine(name: str) -> Any:
        if name not in engines:
            engines[name] = open_teacher(name, plan.loaded, logs)
        return engines[name]

    context = StageContext(
        stage=plan.folder(stage.name),
        recipe=plan.loaded,
        settings={**stage.settings, **stage.extent},
        inputs={role: plan.folder(name) for role, name in stage.inputs.items()},
        engine=engine,
        model=model_folder,
        attempt="serve",
        fingerprint=plan.fingerprints[stage.name].whole,
        # What callers ask is no part of the run, and not on its bill.
        write_entry=lambda _: None,
        show=lambda _: None,
        over_budget=lambda _: None,
        logs=logs,
    )
    try:
        yield _method(stage).compared(context)
    finally:
        for one in engines.values():
            one.close()
