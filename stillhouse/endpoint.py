"""`stillhouse serve`: a run's student over HTTP until interrupted."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from types import FrameType

from rich.console import Console

from core.errors import UseError
from core.recipe import TrainingRecipe
from core.recipe_serving import Serve
from core.run import Run
from stillhouse.ray_session import ray_session, runs_here
from stillhouse.workflow import logs_of, open_run, recipe_of, trained_student


@dataclass(frozen=True)
class Beside:
    """A run whose student gets a share of the requests."""

    run: str
    """Its folder or object-store URL."""
    share: float


def serve_run(
    run: Run,
    student: str | None,
    port: int | None,
    *,
    name: str | None = None,
    canary: Beside | None = None,
    shadow: Beside | None = None,
    stay: bool = True,
) -> None:
    """Serve a student of a run until Ctrl-C.

    Where an application of the same name runs on the cluster already, it is replaced replica by
    replica, and answers until the new one can.

    Args:
        run: That made the student.
        student: Its name in the recipe; the first if absent.
        port: Instead of the recipe's.
        name: Of the application; the student's if absent.
        canary: Answers its share of the requests instead.
        shadow: Hears its share of the requests too.
        stay: Whether to wait for Ctrl-C and take the application down then; otherwise it stays on
            the cluster.

    Raises:
        UseError: There is no such student, or it is not trained yet.
    """
    loaded = recipe_of(run)
    recipe = loaded.recipe
    if not isinstance(recipe, TrainingRecipe):
        raise UseError(
            run.folder.location,
            f"a run of method {recipe.method} has nothing to serve.",
            "A recipe of another method makes a student that is served.",
        )
    if not stay and runs_here():
        raise UseError(
            "--detach",
            "without a cluster the endpoint ends with this command.",
            "Set RAY_ADDRESS to a cluster that stays, or leave --detach out.",
        )
    key, trained = trained_student(run, student)
    settings = recipe.serve if port is None else recipe.serve.model_copy(update={"port": port})
    if settings.api_keys is not None and settings.api_keys.file is not None:
        file = str(loaded.path(settings.api_keys.file))
        keys = settings.api_keys.model_copy(update={"file": file})
        settings = settings.model_copy(update={"api_keys": keys})
    logs = logs_of(run)
    with ray_session(recipe, logs, Console(stderr=True, markup=False).print):
        from serving.application import Beside as BesideModel
        from serving.application import Offered, deploy
        from serving.encoder import encoder_student

        def beside(other: Beside | None) -> BesideModel | None:
            if other is None:
                return None
            _, theirs = trained_student(open_run(other.run), student)
            return BesideModel(
                encoder_student(theirs.folder.child("student").location), other.share
            )

        folder = trained.folder.child("student").location
        endpoint = deploy(
            {key: Offered(encoder_student(folder), beside(canary), beside(shadow))},
            settings,
            name=name or key,
            prefix="/",
            logs=logs / "serve" if runs_here() else None,
        )
        Console().print(
            _how_to_ask(key, endpoint.url, settings), highlight=False, soft_wrap=True, markup=False
        )
        if stay:
            try:
                _wait()
            finally:
                endpoint.close()


def _how_to_ask(name: str, url: str, settings: Serve) -> str:
    key = "" if settings.api_keys is None else " -H 'Authorization: Bearer KEY'"
    return (
        f"{name} answers at {url}/v1/classify, and {url}/docs tells how\n\n"
        f"  curl {url}/v1/classify{key} -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{name}", "input": "Late goal wins the cup"}}\'\n\n'
        "Ctrl-C stops it."
    )


def _wait() -> None:
    """Until Ctrl-C, or until a supervisor asks for the end; both let requests finish."""

    def end(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    threading.Event().wait()
