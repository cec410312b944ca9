"""Debian's redis-server, on a free port of this machine, for one test."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)


@contextmanager
def redis_server(folder: Path, port: int, password: str) -> Iterator[str]:
    """Run one that keeps its data in a folder; gives its address."""
    file = folder / "redis.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\nrequirepass {password}\nappendonly yes\n"
        f"dir {folder}\nlogfile {folder}/redis.log\n"
    )
    process = subprocess.Popen(["redis-server", file], stdout=subprocess.DEVNULL)
    try:
        command = ["redis-cli", "-p", str(port), "-a", password, "--no-auth-warning", "ping"]
        deadline = time.monotonic() + 30
        while subprocess.run(command, capture_output=True, check=False).stdout != b"PONG\n":
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
