"""How much of the bare engine's speed is left when rows go through Stillhouse.

    python benchmarks/generation.py             five pairs each of fixed and skewed lengths
    python benchmarks/generation.py --pairs 1   a look

Both arms use one and the same running engine (SmolLM2-135M on vLLM's async engine, one replica), in
turns: bare, by `asyncio.gather` over `AsyncLLM.generate` in the engine's own process; and through
Stillhouse, by planning rows on disk, Ray Data's workers, the engine pool and committed shards. The
rate is output tokens over the time from the first question that reaches the engine to the last
answer that leaves it; the prefix cache is emptied before each turn. For the bars the engine's core
process has one core and one thread, and everything else the other core. The same with both cores
shared is printed without a bar.

Prints a line with its figures, writes benchmarks/results/generation.json, and exits 1 where the
median ratio of the pairs is below 0.97 for one of the two distributions of lengths.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import ray
import ray.data
from bare_stage import bare_stage

from core.identity import content_id
from core.models import model_folder
from core.recipe import Device, Teacher
from core.teacher import Sampling
from pipelines.engine import VLLMEngine
from pipelines.engine_pool import EnginePool, start_engines
from pipelines.shards import Lane, run_shards

ROOT = Path(__file__).parents[1]
MODEL = "embedded://smollm2-135m-instruct"
BAR = 0.97
PROMPTS = 96
SEQUENCES = 16
LENGTHS = {
    "fixed": lambda _: 24,
    # Most answers are short and a few are long, as generated texts are.
    "skewed": lambda draw: min(96, max(4, int(draw.lognormvariate(2.7, 0.8)))),
}
SHARD_ROWS = 16


class TimedEngine(VLLMEngine):
    """An engine that writes as many tokens as it is asked for, and knows when it was busy."""

    first = 0.0
    last = 0.0
    written = 0

    async def _generate(self, tokens: list[int], parameters: Any) -> Any:
        parameters.ignore_eos = True
        self.first = self.first or time.monotonic()
        output = await super()._generate(tokens, parameters)
        self.last = time.monotonic()
        self.written += len(output.outputs[0].token_ids)
        return output

    async def lap(self) -> float:
        """Output tokens per second since the last lap."""
        rate = self.written / (self.last - self.first)
        self.first = self.last = 0.0
        self.written = 0
        return rate

    async def bare(self, rows: list[tuple[str, int]]) -> float:
        """Output tokens per second of vLLM's engine alone: all prompts at once, nothing between."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        async def ask(number: int, prompt: str, length: int) -> int:
            parameters = SamplingParams(
                max_tokens=length,
                temperature=0.0,
                ignore_eos=True,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            name = f"bare-{time.monotonic()}-{number}"
            outputs = self._engine.generate(prompt, parameters, name)
            return len([one async for one in outputs][-1].outputs[0].token_ids)

        began = time.monotonic()
        asked = (ask(number, *row) for number, row in enumerate(rows))
        return sum(await asyncio.gather(*asked)) / (time.monotonic() - began)

    def core_processes(self) -> list[int]:
        """Processes of the engine's own core, which computes."""
        return [child.pid for child in psutil.Process().children(recursive=True)]


@dataclass(frozen=True)
class Write:
    """The work of a row."""

    engine: EnginePool

    schema = pa.schema([("id", pa.string()), ("text", pa.string())])

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write as many tokens as the row says."""
        sampling = Sampling(max_tokens=row["length"], temperature=0.0)
        answer = await self.engine.complete(row["prompt"], sampling)
        return {"id": row["id"], "text": answer.text}


def draw_rows(kind: str, seed: int) -> list[tuple[str, int]]:
    """Prompts of some forty words with a common beginning, and the tokens to write for each."""
    draw = random.Random(seed)  # noqa: S311, no secret
    words = "market vote goal virus chip coast budget match clinic phone".split()  # noqa: SIM905
    common = "You write for a newspaper. Go on from these words in the same style. "
    return [
        (common + " ".join(draw.choices(words, k=24)), LENGTHS[kind](draw)) for _ in range(PROMPTS)
    ]


class Arms:
    """A running engine, asked in both ways."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        teacher = Teacher(
            model=MODEL,
            engine={
                "dtype": "float32",
                "max_model_len": 512,
                "max_num_seqs": SEQUENCES,
                "block_size": 32,
                "enforce_eager": True,
            },
            device=Device(kind="cpu-core", cpus=1),
        )
        self.pool = start_engines(
            "bench", teacher, model_folder(MODEL), 0, folder, engine=TimedEngine
        )
        self.actor = next(iter(ray.get(self.pool.roster.engines.remote()).values()))
        self._runs = 0

    def bare(self, rows: list[tuple[str, int]]) -> float:
        """Output tokens per second of the engine alone."""
        self.pool.forget_prompts()
        return float(ray.get(self.actor.bare.remote(rows)))

    def stillhouse(self, rows: list[tuple[str, int]]) -> float:
        """Output tokens per second through Stillhouse."""
        self.pool.forget_prompts()
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        context = bare_stage(folder, self.pool, SHARD_ROWS)
        plan = (
            {"id": content_id(number, *row), "prompt": row[0], "length": row[1]}
            for number, row in enumerate(rows)
        )
        self.pool.accounted = self.pool.statistics()
        result = run_shards(context, [Lane(self.pool, plan, Write(self.pool))])
        assert result.rows == len(rows)
        return float(ray.get(self.actor.lap.remote()))


def pin(arms: Arms, *, apart: bool) -> None:
    """Give the engine's core the first core and everything else the second; or both to all."""
    cores = set(ray.get(arms.actor.core_processes.remote()))
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        if process.pid not in cores:
            _bind(process.pid, {1} if apart else {0, 1})
    for pid in cores:
        _bind(pid, {0} if apart else {0, 1})


def _bind(pid: int, cores: set[int]) -> None:
    for thread in _threads(pid):
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:  # it has just ended
            continue


def _threads(pid: int) -> Iterator[int]:
    try:
        yield from (int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return


def measure(arms: Arms, kind: str, pairs: int) -> dict[str, Any]:
    """Interleaved pairs, each in an order that changes."""
    found: dict[str, list[float]] = {"bare": [], "stillhouse": []}
    for pair in range(pairs):
        rows = draw_rows(kind, pair)
        for arm in ("bare", "stillhouse") if pair % 2 == 0 else ("stillhouse", "bare"):
            found[arm].append(getattr(arms, arm)(rows))
    ratios = [s / b for s, b in zip(found["stillhouse"], found["bare"], strict=True)]
    return {**found, "ratios": ratios, "median_ratio": statistics.median(ratios)}


def main() -> int:
    """Run the pairs, print and write the figures; 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        arms = Arms(Path(folder))
        arms.bare(draw_rows("fixed", 99))  # the first pass warms up
        for cores in ("apart", "shared"):
            pin(arms, apart=cores == "apart")
            for kind in LENGTHS:
                one = found[f"{kind}, cores {cores}"] = measure(arms, kind, options.pairs)
                print(
                    f"{kind} lengths, cores {cores}: {one['median_ratio']:.3f} of the bare engine "
                    f"(median of {options.pairs} pairs; {statistics.median(one['bare']):.0f} "
                    f"output tokens/s bare)",
                    flush=True,
                )
        arms.pool.close()
    ray.shutdown()
    held = {kind: found[f"{kind}, cores apart"]["median_ratio"] >= BAR for kind in LENGTHS}
    print(", ".join(f"bar {k} ({BAR}): {'holds' if h else 'MISSED'}" for k, h in held.items()))
    if options.pairs >= 5:
        results = ROOT / "benchmarks" / "results"
        results.mkdir(exist_ok=True)
        text = json.dumps({**found, "bars": held}, indent=2)
        (results / "generation.json").write_text(text + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
