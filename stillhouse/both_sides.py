"""A run's student and its teacher as they are compared, for an endpoint that serves both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from core.errors import UseError
from core.models import model_folder
from core.run import Run
from core.stage import StageContext
from stillhouse.workflow import plan_run, recipe_of


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
    if stage is None:
        raise UseError(
            run.folder.location,
            "no teacher of this recipe can be served beside the student.",
            "A teacher on vLLM or behind an endpoint can; recorded answers cannot.",
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
    method = import_module(stage.run.partition(":")[0])
    try:
        yield method.compared(context)
    finally:
        for one in engines.values():
            one.close()
