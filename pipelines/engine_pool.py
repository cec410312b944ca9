"""The engines of one teacher, held open across the stages that use it."""

from __future__ import annotations

import itertools
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from core.errors import UseError
from core.recipe import REFERENCE, Teacher
from core.teacher import Completion, LabelScores, Sampling
from pipelines.engine import VLLMEngine

RESTARTS = 3
"""Times that an engine is started again after its death, before its rows are given up."""

IN_FLIGHT = 4096
"""Calls that an engine actor holds at once; vLLM queues what it cannot run yet."""


@dataclass
class EnginePool:
    """Running engines of a teacher; implements `core.teacher.Engine`.

    A call goes to the engine with the fewest open calls from this process. Copies of a pool that
    travel to other processes use the same engines and count their own calls.
    """

    teacher: str
    model: str
    actors: list[Any]
    accounted: dict[str, float] = field(default_factory=dict)
    _open_calls: list[int] = field(init=False)
    _seen: dict[tuple[int, float], dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._open_calls = [0] * len(self.actors)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.teacher, self.model, self.actors)

    @property
    def replicas(self) -> int:
        """Engines that run side by side."""
        return len(self.actors)

    async def complete(self, prompt: str, sampling: Sampling) -> Completion:
        """Write on from a prompt."""
        answer: Completion = await self._call("complete", prompt, sampling)
        return answer

    async def score_labels(self, prompt: str, labels: list[str]) -> LabelScores:
        """Score single-token labels as the next token after a prompt."""
        answer: LabelScores = await self._call("score_labels", prompt, labels)
        return answer

    async def _call(self, method: str, *arguments: Any) -> Any:
        chosen = self._open_calls.index(min(self._open_calls))
        self._open_calls[chosen] += 1
        try:
            return await getattr(self.actors[chosen], method).remote(*arguments)
        except ray.exceptions.RayTaskError as error:
            raise getattr(error, "cause", error) from None
        finally:
            self._open_calls[chosen] -= 1

    def statistics(self) -> dict[str, float]:
        """Device-seconds by use and tokens, summed over the engines, since they were started.

        An engine that died and was started again counts with what it had used when last asked.
        """
        for number, found in enumerate(ray.get([a.statistics.remote() for a in self.actors])):
            self._seen[number, found.pop("process")] = found
        keys = next(iter(self._seen.values()))
        return {key: sum(one[key] for one in self._seen.values()) for key in keys}

    def forget_prompts(self) -> None:
        """Empty the engines' prefix caches."""
        ray.get([actor.forget_prompts.remote() for actor in self.actors])

    def processes(self) -> list[int]:
        """Ids of the engines' processes, where they run on this machine."""
        return list(ray.get([actor.process.remote() for actor in self.actors]))

    def close(self) -> None:
        """Stop the engines."""
        for actor in self.actors:
            ray.kill(actor)


def start_engines(name: str, teacher: Teacher, folder: Path, seed: int, logs: Path) -> EnginePool:
    """Start a teacher's engines and wait until all of them can answer.

    Args:
        name: The teacher's name in the recipe.
        teacher: Its section of the recipe.
        folder: The model's folder.
        seed: Of the run.
        logs: Folder for vLLM's output.
    """
    given = {key: _taken_from_here(key, value) for key, value in teacher.environment.items()}
    environment = {**_environment(teacher), **given}
    actor_class = ray.remote(VLLMEngine).options(
        num_cpus=teacher.device.cpus,
        num_gpus=teacher.device.gpus,
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
        max_concurrency=IN_FLIGHT,
        runtime_env={"env_vars": environment},
    )
    logs_of = (logs / f"engine-{name}-{number}.log" for number in itertools.count())
    actors = [
        actor_class.remote(str(folder), teacher.engine, seed, next(logs_of))
        for _ in range(teacher.replicas)
    ]
    try:
        ray.get([actor.process.remote() for actor in actors])
    except ray.exceptions.RayError as error:
        for actor in actors:
            ray.kill(actor)
        raise UseError(
            f"teachers.{name}",
            f"its engine does not start: {_first_cause(error)}",
            f"Check model, engine and device; what vLLM said is in {logs}/engine-{name}-*.log.",
        ) from error
    return EnginePool(name, teacher.model, actors)


def _first_cause(error: Exception) -> str:
    """The last line of the innermost error, which is where libraries say what is wrong."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1].strip()[:300]


def _taken_from_here(name: str, value: str) -> str:
    """A variable's value, looked up where the recipe refers to this process's environment."""
    reference = REFERENCE.fullmatch(value)
    if reference is None:
        return value
    if reference[1] not in os.environ:
        raise UseError(
            f"environment.{name}", f"{reference[1]} is not set here.", f"Export {reference[1]}."
        )
    return os.environ[reference[1]]


def _environment(teacher: Teacher) -> dict[str, str]:
    """What vLLM's process needs to use its cores; nothing where it has a GPU."""
    if teacher.device.gpus:
        return {}
    threads = str(max(1, int(teacher.device.cpus)))
    environment = {
        # vLLM's own binding keeps one core back, half of a two-core machine.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": threads,
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        # Keeps the worker in the engine core's process: one process less to start.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    if openmp.exists():  # half as fast again as the OpenMP that torch brings
        environment["LD_PRELOAD"] = os.pathsep.join(
            part for part in (str(openmp), os.environ.get("LD_PRELOAD", "")) if part
        )
    return environment
