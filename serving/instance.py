"""Ray Serve on the present Ray cluster: one controller and one HTTP proxy for all applications."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import LoggingConfig

from core.errors import UseError
from core.recipe_serving import Serve
from serving.tracing import tracing_config


def quiet_logging(logs: Path | None) -> LoggingConfig:
    """Serve's logs go to files, as JSON.

    Args:
        logs: Folder for the files, or None for Ray's own session folder.
    """
    return LoggingConfig(
        encoding="JSON",
        enable_access_log=False,  # the gate writes a line of its own
        logs_dir=str(logs.absolute()) if logs else None,
    )


def start_serve(settings: Serve, logs: Path | None) -> str:
    """Start Serve where it does not run yet.

    Args:
        settings: Its port 0 takes a free one, or the one where Serve listens already.
        logs: Folder for the logs of controller and proxy.

    Returns:
        The URL that all applications' route prefixes are added to.

    Raises:
        UseError: The port is taken, or Serve runs on another one.
    """
    _join_ray_log()
    # Serve tells the address of a running instance nowhere else.
    running = _get_global_client(raise_if_no_controller_running=False)
    if running is None:
        port = free_port(settings.host, settings.port)
        serve.start(
            http_options={"host": settings.host, "port": port},
            logging_config=quiet_logging(logs),
            tracing_config=tracing_config(settings.tracing),
        )
        return _url(settings.host, port)
    options = running.http_config
    if settings.port not in (0, options.port):
        raise UseError(
            "serve.port",
            f"Ray Serve listens on port {options.port} of this cluster already, "
            f"not on {settings.port}.",
            f"Set serve.port to {options.port} or to 0.",
        )
    return _url(options.host, options.port)


def _url(host: str, port: int) -> str:
    """Where a caller on this machine asks."""
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104, told apart


def _join_ray_log() -> None:
    """Send what Serve says in this process where the rest of Ray sends its own.

    On import Serve gives its logger a handler to the terminal, whatever was set up before.
    """
    logger = logging.getLogger("ray.serve")
    logger.handlers = []
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def free_port(host: str, port: int) -> int:
    """A port of this machine that nothing listens on: the one asked for, or any where it is 0.

    Raises:
        UseError: It is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise UseError(
                "serve.port",
                f"port {port} of this machine is taken.",
                "Stop what listens there, or set serve.port to another one, or to 0.",
            ) from None
        return int(probe.getsockname()[1])


def replica_processes(application: str) -> list[int]:
    """Process ids of an application's replicas."""
    return _processes(f"SERVE_REPLICA::{application}#")


def proxy_processes() -> list[int]:
    """Process ids of the HTTP proxies, which all applications share."""
    return _processes("SERVE_PROXY_ACTOR-")


def _processes(prefix: str) -> list[int]:
    names = [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["name"].startswith(prefix)
    ]
    actors = [ray.get_actor(name, namespace="serve") for name in names]
    return list(ray.get([actor.__ray_call__.remote(_process) for actor in actors]))


def _process(_: object) -> int:
    return os.getpid()
