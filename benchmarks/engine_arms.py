"""Running engines that are asked in two ways: bare, and through Stillhouse."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import ray
from bare_stage import bare_stage

from core.identity import content_id
from core.models import model_folder
from core.recipe_section import Device
from core.recipe_teachers import Replicas, Teacher
from core.teacher import Sampling
from pipelines.engine import VLLMEngine
from pipelines.engine_pool import EnginePool, start_engines
from pipelines.shards import Lane, run_shards

MODEL = "embedded://smollm2-135m-instruct"
SEQUENCES = 16
ENGINE = {
    "dtype": "float32",
    "max_model_len": 512,
    "max_num_seqs": SEQUENCES,
    "block_size": 32,
    "enforce_eager": True,
}
LENGTHS = {
    "fixed": lambda _: 24,
    # Most answers are short and a few are long, as generated texts are.
    "skewed": lambda draw: min(96, max(4, int(draw.lognormvariate(2.7, 0.8)))),
}
SHARD_ROWS = 16

Prompt = tuple[str, int]
"""What to go on from, and how many tokens to write."""


def draw_prompts(kind: str, seed: int, number: int) -> list[Prompt]:
    """Prompts of some forty words with a common beginning, and the tokens to write for each."""
    draw = random.Random(seed)  # noqa: S311, no secret
    words = "market vote goal virus chip coast budget match clinic phone".split()  # noqa: SIM905
    common = "You write for a newspaper. Go on from these words in the same style. "
    return [
        (common + " ".join(draw.choices(words, k=24)), LENGTHS[kind](draw)) for _ in range(number)
    ]


@dataclass(frozen=True)
class Lap:
    """What an engine has written between two looks."""

    first: float
    """When the first question came, in seconds of the machine's monotonic clock."""
    last: float
    """When the last answer left."""
    tokens: int
    """Written."""


def rate(laps: Iterable[Lap]) -> float:
    """Output tokens a second of engines side by side, from first question to last answer."""
    laps = list(laps)
    seconds = max(lap.last for lap in laps) - min(lap.first for lap in laps)
    return sum(lap.tokens for lap in laps) / seconds


class TimedEngine(VLLMEngine):
    """An engine that writes as many tokens as it is asked for, and knows when it was busy."""

    _lap = Lap(0.0, 0.0, 0)

    async def _generate(self, tokens: list[int], parameters: Any) -> Any:
        parameters.ignore_eos = True
        began = time.monotonic()
        output = await super()._generate(tokens, parameters)
        lap, written = self._lap, len(output.outputs[0].token_ids)
        self._lap = Lap(lap.first or began, time.monotonic(), lap.tokens + written)
        return output

    async def lap(self) -> Lap:
        """What went through Stillhouse since the last look."""
        lap, self._lap = self._lap, Lap(0.0, 0.0, 0)
        return lap

    async def bare(self, prompts: list[Prompt]) -> Lap:
        """Ask vLLM's engine alone: all prompts at once, nothing between."""
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
        asked = (ask(number, *prompt) for number, prompt in enumerate(prompts))
        tokens = sum(await asyncio.gather(*asked))
        return Lap(began, time.monotonic(), tokens)

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


class EngineArms:
    """Engines of one core and one thread each, asked in both ways."""

    def __init__(self, folder: Path, replicas: int | Replicas) -> None:
        """Start the engines.

        Args:
            folder: For logs and runs.
            replicas: How many, as a recipe has it.
        """
        self._folder = folder
        self._runs = 0
        teacher = Teacher(
            model=MODEL, engine=ENGINE, replicas=replicas, device=Device(kind="cpu-core", cpus=1)
        )
        self.pool = start_engines(
            "bench", teacher, model_folder(MODEL), 0, folder, engine=TimedEngine
        )

    def actors(self) -> list[Any]:
        """The engines that run now."""
        return list(ray.get(self.pool.roster.engines.remote()).values())

    def core_processes(self) -> list[list[int]]:
        """By engine, the processes of its own core."""
        return ray.get([actor.core_processes.remote() for actor in self.actors()])

    def bare(self, prompts: list[Prompt]) -> list[Lap]:
        """Ask the engines alone, each for its part of the prompts."""
        self.pool.forget_prompts()
        actors = self.actors()
        return ray.get(
            [actor.bare.remote(prompts[n :: len(actors)]) for n, actor in enumerate(actors)]
        )

    def stillhouse(self, prompts: list[Prompt]) -> list[Lap]:
        """Ask the engines through Stillhouse."""
        self.pool.forget_prompts()
        self._runs += 1
        context = bare_stage(self._folder / f"run-{self._runs}", self.pool, SHARD_ROWS)
        plan = (
            {"id": content_id(number, *prompt), "prompt": prompt[0], "length": prompt[1]}
            for number, prompt in enumerate(prompts)
        )
        self.pool.accounted = self.pool.statistics()
        result = run_shards(context, [Lane(self.pool, plan, Write(self.pool))])
        assert result.rows == len(prompts)
        return ray.get([actor.lap.remote() for actor in self.actors()])
