"""Processes that must not outlive the one that started them, however it ends."""

from __future__ import annotations

import os
import subprocess

_WATCH = 'read -r _; kill -s KILL -- "-$0"'
"""For a shell whose input ends with the process that it watches; `$0` is the group."""


_watching: subprocess.Popen[bytes] | None = None


def end_group_with_this_process() -> None:
    """Have all processes that this one starts from now on killed when it ends.

    vLLM's engine process does not notice that its parent is gone. Ray kills what a worker leaves,
    but not where the whole node dies: an engine without a master would hold its device for ever.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    # Only this process holds the other end: Python hands no open file on to what it executes.
    global _watching  # noqa: PLW0603, the other end is to stay open for as long as the process lives
    _watching = subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, str(os.getpid())],
        stdin=subprocess.PIPE,
        # It has nothing to say: where all have ended by themselves, none is found.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
