"""What a row costs apart from its engine, and whether that grows with the number of rows.

    python benchmarks/scale.py                        100 thousand and 10 million rows
    python benchmarks/scale.py --rows 100000 1000000  other sizes

A stage is planned, answered by an engine that answers at once, and committed, with Ray's own start
apart. Each size runs in a process of its own. Prints one line, writes benchmarks/results/scale.json
(for the sizes of the bars only), and exits 1 where a bar does not hold:

- a row costs at most 1.1 times as much at the large size as at the small one;
- driver and actors together take at most 1.2 times as much memory at their peak;
- at least 5,000 rows a second.

Memory is the sum of the processes' proportional set sizes, looked at once a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

ROOT = Path(__file__).parents[1]
SIZES = (100_000, 10_000_000)
BARS = {"cost_ratio": 1.1, "memory_ratio": 1.2, "rows_per_second": 5_000}
SHARD_ROWS = 5_000
WORDS = "the quick brown fox jumps over a lazy dog and runs away from it all at once"


class InstantEngine:
    """A teacher that answers at once, in the process of whoever asks."""

    teacher = model = "instant"
    rows_at_once = 4_000
    replicas = 1

    def __init__(self) -> None:
        from core.recipe_section import Device
        from pipelines.beside_driver import actor_beside_driver
        from pipelines.desk import Desk

        self.accounted: dict[str, float] = {}
        self.device = Device()
        self.desk = actor_beside_driver(Desk).remote()

    async def complete(self, prompt: str, _: Any) -> Any:
        """The prompt in capitals."""
        from core.teacher import Completion, Usage

        return Completion(prompt.upper(), Usage(1, 16, 0, 16), "stop")

    def statistics(self) -> dict[str, float]:
        """Nothing: the copies in the workers do the work."""
        keys = "startup useful idle requests tokens_in tokens_cached tokens_out"
        return dict.fromkeys(keys.split(), 0.0)

    def demand(self, rows: int, seconds_left: float) -> None:
        """Nothing to scale."""

    async def disconnect(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True)
class Answer:
    """The work of a row."""

    engine: InstantEngine

    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("tokens_out", pa.int32())])

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Ask for one row."""
        completion = await self.engine.complete(row["prompt"], None)
        return {
            "id": row["id"],
            "text": completion.text,
            "tokens_out": completion.usage.tokens_out,
        }


def plan(rows: int) -> Iterator[dict[str, Any]]:
    """Rows with prompts of sixteen words, each different."""
    for number in range(rows):
        digest = blake2b(number.to_bytes(8, "big"), digest_size=16).hexdigest()
        yield {"id": digest, "prompt": f"{WORDS} {number}"}


class MemoryWatch(threading.Thread):
    """Peak of the memory of this process and of Ray's workers together, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        """Look once a second."""
        me = psutil.Process()
        while True:
            processes = [me, *(p for p in me.children(recursive=True) if _is_worker(p))]
            self.peak = max(self.peak, sum(map(_memory, processes)))
            time.sleep(1.0)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::")
    except psutil.Error:
        return False


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def measure(rows: int) -> dict[str, float]:
    """Run one size here."""
    import ray
    from bare_stage import bare_stage
    from local_ray import start_ray

    from pipelines.shards import Lane, run_shards

    start_ray()
    engine = InstantEngine()
    with tempfile.TemporaryDirectory(dir=ROOT / "runs") as folder:
        context = bare_stage(Path(folder), engine, SHARD_ROWS)
        watch = MemoryWatch()
        watch.start()
        began = time.monotonic()
        result = run_shards(context, [Lane(engine, plan(rows), Answer(engine))])
        seconds = time.monotonic() - began
    assert result.rows == rows, f"{result.rows} of {rows} rows came back"
    ray.shutdown()
    return {"rows": rows, "seconds": seconds, "peak_bytes": watch.peak}


def main() -> int:
    """Run the sizes, print and write the figures; 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, nargs=2, default=SIZES, metavar=("SMALL", "LARGE"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    (ROOT / "runs").mkdir(exist_ok=True)
    if options.one is not None:
        print(json.dumps(measure(options.one)))
        return 0
    runs = []
    for rows in options.rows:
        command = [sys.executable, __file__, "--one", str(rows)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    small, large = runs
    found = {
        "runs": runs,
        "cost_ratio": (large["seconds"] / large["rows"]) / (small["seconds"] / small["rows"]),
        "memory_ratio": large["peak_bytes"] / small["peak_bytes"],
        "rows_per_second": large["rows"] / large["seconds"],
    }
    held = {
        "cost_ratio": found["cost_ratio"] <= BARS["cost_ratio"],
        "memory_ratio": found["memory_ratio"] <= BARS["memory_ratio"],
        "rows_per_second": found["rows_per_second"] >= BARS["rows_per_second"],
    }
    print(
        f"{large['rows']:,} rows: {found['rows_per_second']:,.0f} rows/s; beside {small['rows']:,} "
        f"rows a row costs {found['cost_ratio']:.2f} times as much, and memory is "
        f"{found['memory_ratio']:.2f} times {small['peak_bytes'] / 2**20:,.0f} MiB; "
        + ", ".join(f"{name} {'holds' if holds else 'MISSED'}" for name, holds in held.items())
    )
    if tuple(options.rows) == SIZES:
        results = ROOT / "benchmarks" / "results"
        results.mkdir(exist_ok=True)
        (results / "scale.json").write_text(json.dumps({**found, "bars": held}, indent=2) + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
