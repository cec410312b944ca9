"""Permissions that bind in a subprocess even where the tests run as root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2  # what lets root pass them by
CAP_SETPCAP = 8  # what lets it give them up


def bind_permissions() -> Callable[[], None] | None:
    """What a subprocess does before it begins: `preexec_fn`; None where they bind anyway."""
    if os.geteuid() != 0:
        return None
    libc = ctypes.CDLL(None)
    if not _has(CAP_SETPCAP):
        pytest.skip("root without the right to give up its rights")

    def drop() -> None:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            assert libc.prctl(PR_CAPBSET_DROP, capability) == 0

    return drop


def _has(capability: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(effective.split()[1], 16) >> capability & 1)


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    """Give a file or folder other permissions for a while."""
    before = path.stat().st_mode
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)
