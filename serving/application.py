"""Models as one Serve application: how it is laid out, and how it is started and replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from core.errors import UseError, WorkError
from core.placement import placed
from core.recipe_serving import Serve
from core.run import Folder
from core.student_reading import FILE, StudentReading
from serving.arguments import SharedStudent, Student, read_arguments
from serving.encoder import encoder_student
from serving.front import DEPLOYMENT, Front, Placed
from serving.instance import proxy_processes, quiet_logging, replica_processes, start_serve
from serving.models import ServedModel
from serving.page import Page
from serving.replica import ModelReplica
from serving.teacher import PromptedTeacher
from serving.text_teacher import TextTeacher

LIGHT_FRONT_REQUESTS = 4096
"""Requests that a front without models holds at once; the models' deployments set the limits."""


@dataclass(frozen=True)
class Beside:
    """A model that gets a share of another one's requests."""

    model: ServedModel
    share: float


@dataclass(frozen=True)
class Offered:
    """A model of an application, with what stands beside it."""

    model: ServedModel
    canary: Beside | None = None
    shadow: Beside | None = None


@dataclass(frozen=True)
class Endpoint:
    """A running application."""

    name: str
    url: str
    """With the route prefix; `/v1/classify` comes after it."""
    models: Mapping[str, ServedModel] = field(default_factory=dict)

    def processes(self) -> list[int]:
        """Processes of this application alone: its replicas, and engines that they ask."""
        engines = {
            pid
            for model in self.models.values()
            if isinstance(model, PromptedTeacher | TextTeacher)
            for pid in model.engine.processes()
        }
        return [*replica_processes(self.name), *engines]

    def shared_processes(self) -> list[int]:
        """Processes that the requests of all applications pass: the proxies."""
        return proxy_processes()

    def close(self) -> None:
        """Take the application down; Serve itself stays for the others, until Ray stops."""
        serve.delete(self.name)


def build(args: dict[str, Any]) -> serve.Application:
    """The application of some students: the import path that Serve and a RayService run.

    Args:
        args: As `serving.arguments.Arguments`, such as
            `{"students": {"minilm": {"folder": "s3://bucket/minilm"}}, "serve": {"replicas": 2}}`.

    Raises:
        UseError: An argument is wrong, or a folder holds no student.
    """
    arguments = read_arguments(args)
    if _write(arguments.students):
        from serving.writers import lay_out_writers, writing_student

        return lay_out_writers(
            {
                name: writing_student(one.folder, one.engine, one.adapters, one.card)
                for name, one in arguments.students.items()
            },
            arguments.serve,
        )

    def beside(shared: SharedStudent | None) -> Beside | None:
        return None if shared is None else Beside(encoder_student(shared.folder), shared.share)

    return lay_out(
        {
            name: Offered(
                encoder_student(student.folder, card=student.card),
                beside(student.canary),
                beside(student.shadow),
            )
            for name, student in arguments.students.items()
        },
        arguments.serve,
    )


def _write(students: Mapping[str, Student]) -> bool:
    """Whether students write, and do not choose.

    Raises:
        UseError: Some do, and some do not.
    """
    families = {name: family_of(one.folder) for name, one in students.items()}
    writers = [name for name, family in families.items() if family != "encoder"]
    if writers and len(writers) < len(families):
        raise UseError(
            "args.students",
            f"{', '.join(writers)} write, and the others choose: they have different APIs.",
            "Serve them as two applications.",
        )
    for name in writers:
        if students[name].canary or students[name].shadow:
            raise UseError(
                f"args.students.{name}",
                "canary and shadow are for students that choose.",
                "Serve the other one under a name of its own.",
            )
    return bool(writers)


def family_of(folder: str) -> str:
    """A student's family, as its folder says; one that says nothing is an encoder."""
    place = Folder(folder)
    return StudentReading(**place.read_json(FILE)).family if place.has(FILE) else "encoder"


def lay_out(
    offered: Mapping[str, Offered], settings: Serve, page: Page | None = None
) -> serve.Application:
    """Divide models among deployments.

    The front loads the first model itself, so that a request makes one hop; a model that may scale
    to zero, and all others, have deployments of their own.
    """
    scale = settings.scale
    first = next(iter(offered))
    inside = scale.min > 0
    laid = {}
    for name, one in offered.items():
        # What has no device of its own costs the front nothing.
        loads = not one.model.holds_device or (inside and name == first)
        laid[name] = Placed(
            one.model,
            None if loads else _deployment(name, one.model, settings),
            *_beside(f"{name}-canary", one.canary, settings),
            *_beside(f"{name}-shadow", one.shadow, settings),
        )
    loaded = [one.model for one in laid.values() if one.handle is None]
    heavy = any(model.holds_device for model in loaded)
    options = held_options(settings) if heavy else _light(settings)
    front = serve.deployment(name=DEPLOYMENT, **options)(serve.ingress()(Front))
    return front.bind(laid, settings, page)


def deploy(
    offered: Mapping[str, Offered | ServedModel],
    settings: Serve,
    *,
    name: str = "stillhouse",
    prefix: str | None = None,
    logs: Path | None = None,
    page: Page | None = None,
) -> Endpoint:
    """Serve models in one application and wait until all of them answer.

    Args:
        offered: By the name that requests give.
        settings: The recipe's `serve` section.
        name: Names the application. One of the same name is replaced, replica by replica, and
            answers until the new one can.
        prefix: What its routes begin with, such as `/`; `/NAME` if absent.
        logs: Folder for Serve's logs, or None for Ray's own session folder.
        page: What a person sees who tries it; there is no page if None.

    Raises:
        UseError: The port cannot be had.
        WorkError: A model could not be loaded.
    """
    whole = {key: one if isinstance(one, Offered) else Offered(one) for key, one in offered.items()}
    running = run(
        lambda: lay_out(whole, settings, page),
        list(offered),
        settings,
        name=name,
        prefix=prefix,
        logs=logs,
    )
    return replace(running, models={key: one.model for key, one in whole.items()})


def run(
    layout: Callable[[], serve.Application],
    models: Sequence[str],
    settings: Serve,
    *,
    name: str,
    prefix: str | None,
    logs: Path | None,
) -> Endpoint:
    """Run an application and wait until it answers; a running one of its name is replaced.

    Args:
        layout: Lays it out, when Serve runs.
        models: What is in it, for messages.
        settings: The recipe's `serve` section.
        name: Of the application.
        prefix: What its routes begin with; `/NAME` if None.
        logs: Folder for Serve's logs, or None for Ray's own session folder.

    Raises:
        UseError: The port cannot be had.
        WorkError: A model could not be loaded.
    """
    base = start_serve(settings, logs)
    prefix = prefix or f"/{name}"
    before = name in serve.status().applications
    try:
        serve.run(layout(), name=name, route_prefix=prefix, logging_config=quiet_logging(logs))
    except RuntimeError as error:
        cause = _last_words(name)
        if not before:  # otherwise the replicas of the one before still answer
            serve.delete(name)
        raise WorkError(
            f"serving {', '.join(models)}",
            f"a replica did not start: {cause}",
            f"Serve's logs are in {logs or 'the Ray session folder'}.",
        ) from error
    return Endpoint(name, f"{base}{prefix}".rstrip("/"))


def _deployment(name: str, model: ServedModel, settings: Serve) -> serve.Application:
    options = held_options(settings) if model.holds_device else _light(settings)
    return serve.deployment(name=name, **options)(ModelReplica).bind(model, settings)


def _beside(
    name: str, beside: Beside | None, settings: Serve
) -> tuple[serve.Application | None, float]:
    return (
        (None, 0.0)
        if beside is None
        else (
            _deployment(name, beside.model, settings),
            beside.share,
        )
    )


def held_options(settings: Serve) -> dict[str, Any]:
    """Of a deployment whose replicas hold the device."""
    scale = settings.scale
    options: dict[str, Any] = {"num_replicas": scale.max}
    if scale.min < scale.max:
        options = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=scale.min,
                max_replicas=scale.max,
                target_ongoing_requests=scale.target_requests,
                upscale_delay_s=scale.up_after_seconds,
                downscale_delay_s=scale.down_after_seconds,
            )
        }
    return {
        **options,
        "ray_actor_options": {
            "num_cpus": settings.device.cpus,
            "num_gpus": settings.device.gpus,
            **placed("server", settings.device.kind),
        },
        "max_ongoing_requests": settings.max_ongoing,
        "max_queued_requests": settings.max_queued,
        **always(settings),
    }


def _light(settings: Serve) -> dict[str, Any]:
    """Of a deployment that holds no device."""
    return {
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": LIGHT_FRONT_REQUESTS,
        **always(settings),
    }


def always(settings: Serve) -> dict[str, Any]:
    """Options of every deployment."""
    return {
        "backpressure_config": BackpressureConfig(
            status_code=429, retry_after_s=settings.retry_after_seconds
        ),
        "graceful_shutdown_timeout_s": settings.drain_seconds,
        "graceful_shutdown_wait_loop_s": 0.5,
        # An update starts new replicas before it stops old ones.
        "max_surge_percent": 100,
    }


def _last_words(application: str) -> str:
    """The last line of what the replicas that failed said: the exception itself."""
    deployments = serve.status().applications[application].deployments.values()
    return " ".join(said.message.splitlines()[-1] for said in deployments if said.message)
