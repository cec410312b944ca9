"""Which processes run on which cores of this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import psutil


def pin(pids: Iterable[int], cores: Collection[int]) -> None:
    """Let processes run on these cores alone, with the threads that they have and will start."""
    for pid in pids:
        for thread in _threads(pid):
            try:
                os.sched_setaffinity(thread, cores)
            except ProcessLookupError:  # it has just ended
                continue


def pin_all_others(pids: Collection[int], cores: Collection[int]) -> None:
    """The same for this process and all that it has started, but for `pids`."""
    me = psutil.Process()
    pin((p.pid for p in (me, *me.children(recursive=True)) if p.pid not in pids), cores)


def _threads(pid: int) -> Iterator[int]:
    try:
        yield from (int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return
