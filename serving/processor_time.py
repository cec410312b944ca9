"""The processor time of processes and their children, as the operating system counts it."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time so far of processes and all their children, each counted once.

    Take the difference of two readings. A child that ends between them stays counted, in its
    parent; a process of `pids` that has ended counts nothing. The system counts in steps of 10 ms.
    """
    seen: set[int] = set()
    total = 0.0
    for pid in pids:
        try:
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for process in tree:
            if process.pid in seen:
                continue
            seen.add(process.pid)
            total += _own_seconds(process)
    return total


def _own_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
