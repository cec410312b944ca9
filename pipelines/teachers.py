"""A teacher by its name in the recipe, ready to be asked, whatever stands behind it."""

from __future__ import annotations

from pathlib import Path

from core.models import adapter_folder, model_folder
from core.recipe import LoadedRecipe
from core.recipe_teachers import EndpointTeacher, RecordedTeacher
from core.teacher import Engine


def open_teacher(name: str, loaded: LoadedRecipe, logs: Path) -> Engine:
    """Start a teacher's engines, check what its endpoint needs, or read its recorded answers.

    Args:
        name: The teacher's name in the recipe.
        loaded: The recipe.
        logs: Folder for what engines print.

    Raises:
        UseError: It cannot be started as the recipe has it.
    """
    teacher = loaded.recipe.teachers[name]
    if isinstance(teacher, EndpointTeacher):
        from pipelines.endpoint import Endpoint

        endpoint = Endpoint(name, teacher)
        endpoint.check()
        return endpoint
    if isinstance(teacher, RecordedTeacher):
        from pipelines.recorded import RecordedAnswers

        return RecordedAnswers(name, teacher, [loaded.path(file) for file in teacher.files])
    from pipelines.engine_pool import start_engines  # Ray takes seconds to load

    return start_engines(
        name,
        teacher,
        model_folder(teacher.model),
        loaded.recipe.seed,
        logs,
        adapter=None if teacher.adapter is None else adapter_folder(teacher.adapter),
    )
