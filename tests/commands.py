"""The command line, called as a user calls it: in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

ROOT = Path(__file__).parents[1]

LOADED = [
    "stillhouse.command_line",
    "stillhouse.workflow",
    "stillhouse.reporting",
    "stillhouse.gather_teacher_data",
    "pipelines.shards",
    "pipelines.endpoint",
    "scipy.stats",
]
"""What nearly every command loads. Nothing of it starts a thread."""


def fresh_command(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command in a new interpreter, for what starts a Ray."""
    return subprocess.run(
        [sys.executable, "-m", "stillhouse.command_line", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same, forked from an interpreter that has loaded the libraries, seconds of CPU time."""
    return forked(
        *arguments, folder=folder, environment={**os.environ, "COLUMNS": "160", **environment}
    )


def forked(
    *arguments: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """The command with this environment and no other, forked from a loaded interpreter."""
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        process = _loaded().Process(
            target=_call, args=(arguments, str(folder), dict(environment), out.name, err.name)
        )
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(
            arguments, process.exitcode, Path(out.name).read_text(), Path(err.name).read_text()
        )


@cache
def _loaded() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


def _call(
    arguments: tuple[str, ...], folder: str, environment: dict[str, str], out: str, err: str
) -> None:
    for stream, name in ((1, out), (2, err)):
        os.dup2(os.open(name, os.O_WRONLY), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # of the interpreter that was forked
    sys.argv = ["stillhouse", *arguments]
    from stillhouse.command_line import main

    main()
