"""Processes that a command started, however far down, and that outlive it."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

MARK = "STILLHOUSE_TEST_MARK"


def marked() -> tuple[str, dict[str, str]]:
    """A mark of its own, and the environment that puts it on a command and all that it starts."""
    mark = f"{MARK}={uuid.uuid4().hex}"
    # Ray and vLLM rename their processes, which overwrites /proc/PID/environ but for SPT_NOENV.
    return mark, {**os.environ, "SPT_NOENV": "1", **dict([mark.split("=")])}


def leftovers(mark: str, seconds: float) -> dict[int, str]:
    """Processes with a mark, by id, with their command lines, once they had time to end."""
    deadline = time.monotonic() + seconds
    while (found := _with(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _with(mark: str) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # That of a process that has ended and waits for its parent to ask is empty.
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = command.decode(errors="replace")
        except OSError:  # ended meanwhile, or another user's
            continue
    return found
