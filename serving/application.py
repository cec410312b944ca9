"""Several models as one Serve application behind one URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ray import serve

from core.errors import WorkError
from core.recipe import Serve
from serving.encoder import EncoderStudent
from serving.front import DEPLOYMENT, bind_front
from serving.instance import proxy_processes, quiet_logging, replica_processes, start_serve
from serving.teacher import PromptedTeacher

ServedModel = EncoderStudent | PromptedTeacher


@dataclass(frozen=True)
class Endpoint:
    """A running application."""

    name: str
    url: str
    """With the route prefix; `/v1/classify` comes after it."""
    models: Mapping[str, ServedModel]

    def processes(self, model: str) -> list[int]:
        """Processes that work for one model: its replicas and, for a teacher, its engine."""
        served = self.models[model]
        engine = served.engine.processes() if isinstance(served, PromptedTeacher) else []
        return [*replica_processes(self.name, model), *engine]

    def shared_processes(self) -> list[int]:
        """Processes that every request passes, whatever its model: the proxy and the front."""
        return [*proxy_processes(), *replica_processes(self.name, DEPLOYMENT)]

    def close(self) -> None:
        """Take the application down; Serve itself stays for the others, until Ray stops."""
        serve.delete(self.name)


def deploy(
    models: Mapping[str, ServedModel],
    settings: Serve,
    *,
    name: str = "stillhouse",
    prefix: str | None = None,
    logs: Path | None = None,
) -> Endpoint:
    """Serve models in one application and wait until all of them answer.

    Args:
        models: By the name that requests give.
        settings: The recipe's `serve` section.
        name: Names the application. One of the same name is replaced.
        prefix: What its routes begin with, such as `/`; `/NAME` if absent.
        logs: Folder for Serve's logs, or None for Ray's own session folder.

    Raises:
        UseError: The port cannot be had.
        WorkError: A model could not be loaded.
    """
    base = start_serve(settings.port, logs)
    prefix = prefix or f"/{name}"
    front = bind_front(
        {key: model.bind(key, settings) for key, model in models.items()},
        {key: model.choices for key, model in models.items()},
    )
    try:
        serve.run(front, name=name, route_prefix=prefix, logging_config=quiet_logging(logs))
    except RuntimeError as error:
        cause = _last_words(name)
        serve.delete(name)
        raise WorkError(
            f"serving {', '.join(models)}",
            f"a replica did not start: {cause}",
            f"Serve's logs are in {logs or 'the Ray session folder'}.",
        ) from error
    return Endpoint(name, f"{base}{prefix}".rstrip("/"), models)


def _last_words(application: str) -> str:
    """The last line of what the replicas that failed said: the exception itself."""
    deployments = serve.status().applications[application].deployments.values()
    return " ".join(said.message.splitlines()[-1] for said in deployments if said.message)
