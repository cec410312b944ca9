"""`stillhouse serve`: a run's student over HTTP until interrupted."""

from __future__ import annotations

import threading

from rich.console import Console

from core.run import Run
from stillhouse.ray_session import ray_session
from stillhouse.workflow import logs_of, recipe_of, refuse_without_student, trained_student


def serve_run(run: Run, student: str | None, port: int | None) -> None:
    """Serve a student of a run until Ctrl-C.

    Raises:
        UseError: There is no such student, or it is not trained yet.
    """
    refuse_without_student(run, "has nothing to serve")
    recipe = recipe_of(run).student_recipe
    name, trained = trained_student(run, student)
    settings = recipe.serve if port is None else recipe.serve.model_copy(update={"port": port})
    logs = logs_of(run)
    with ray_session(recipe, logs, Console(stderr=True, markup=False).print):
        from core.models import model_folder
        from serving.stand import serve_student

        folder = model_folder(trained.folder.child("student").location)
        endpoint = serve_student(
            name, folder, recipe.task.choices, settings, prefix="/", logs=logs / "serve"
        )
        Console().print(
            f"{name} answers at {endpoint.url}/v1/classify\n\n"
            f"  curl {endpoint.url}/v1/classify -H 'Content-Type: application/json' \\\n"
            f'    -d \'{{"model": "{name}", "input": "Late goal wins the cup"}}\'\n\n'
            "Ctrl-C stops it.",
            highlight=False,
            soft_wrap=True,
        )
        try:
            threading.Event().wait()
        finally:
            endpoint.close()
