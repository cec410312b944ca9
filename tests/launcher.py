"""Workers of a training without Ray, each a process of a module in `tests/`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def launch(module: str, told: str, folder: Path, workers: int = 2) -> list[Any]:
    """Run the workers of a training, and return what each has written down.

    Args:
        module: That runs one, as `python -m MODULE RANK WORKERS PORT TOLD OUTPUT`.
        told: What it is told.
        folder: For results and logs.
        workers: How many.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module]
    results = [folder / f"{rank}.json" for rank in range(workers)]
    logs = [(folder / f"{rank}.log").open("w") for rank in range(workers)]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(workers), str(port), told, str(results[rank])],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=logs[rank],
            stderr=subprocess.STDOUT,
        )
        for rank in range(workers)
    ]
    codes = [worker.wait(timeout=600) for worker in started]
    assert codes == [0] * workers, Path(logs[0].name).read_text()[-2000:]
    return [json.loads(result.read_text()) for result in results]
