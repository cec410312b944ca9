"""How one engine of a teacher is started: its actor, its devices, its environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from core.errors import UseError
from core.placement import label_selector, placed
from core.recipe_teachers import REFERENCE, Teacher
from pipelines.engine import VLLMEngine

RESTARTS = 100
"""Times that Ray starts an engine again after its death. A prompt that kills engines is found by
halves, which takes a dozen deaths; the rest is for nodes that come and go."""

IN_FLIGHT = 4096
"""Calls that an engine actor holds at once; vLLM queues what it cannot run yet."""

DEFAULT_SEQUENCES = 256
"""Sequences that vLLM runs at once where the recipe does not say."""


@dataclass(frozen=True)
class StartedEngine:
    """An engine's actor, and what it holds of the cluster beside itself."""

    actor: Any
    group: PlacementGroup | None

    def close(self) -> None:
        """Stop it, and give back what it holds."""
        ray.kill(self.actor)
        self.give_back()

    def give_back(self) -> None:
        """Give back what it held, where its actor is gone."""
        if self.group is not None:
            remove_placement_group(self.group)


@dataclass(frozen=True)
class EngineStart:
    """All that it takes to start engines of a teacher; travels to the roster."""

    name: str
    """The teacher's name in the recipe."""
    teacher: Teacher
    folder: Path
    """The model's folder."""
    adapter: Path | None
    """Folder of the LoRA adapter that is put on the model."""
    seed: int
    """Of the run."""
    logs: Path
    """Folder for vLLM's output."""
    environment: dict[str, str]
    """Of the engines' processes."""
    secrets: dict[str, str] = field(repr=False)
    """The same, of what may stand in no log."""
    engine: type = VLLMEngine

    @property
    def rows_at_once(self) -> int:
        """Rows that one engine works on at once."""
        return int(self.teacher.engine.get("max_num_seqs", DEFAULT_SEQUENCES))

    def start(self, number: int) -> StartedEngine:
        """Start one engine; the actor answers when it is ready."""
        teacher, group = self.teacher, None
        options: dict[str, Any] = {
            "num_cpus": teacher.device.cpus,
            "num_gpus": teacher.device.gpus,
            **placed("teacher", teacher.device.kind),
        }
        arguments = teacher.engine
        if teacher.nodes > 1:
            bundles = bundles_of(teacher)
            where = label_selector("teacher", teacher.device.kind)
            group = placement_group(
                bundles,
                strategy="PACK",
                bundle_label_selector=[where] * len(bundles) if where else None,
            )
            # vLLM finds the group that its process runs in, and puts a worker on each bundle.
            options = {
                "num_cpus": teacher.device.cpus / teacher.device.gpus,
                "num_gpus": 0,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    group,
                    placement_group_bundle_index=0,
                    placement_group_capture_child_tasks=True,
                ),
            }
            arguments = {"distributed_executor_backend": "ray", **arguments}
        actor_class = ray.remote(self.engine).options(
            **options,
            max_restarts=RESTARTS,
            # Whoever asks learns of a death, and decides what is asked again.
            max_task_retries=0,
            max_concurrency=IN_FLIGHT,
            # Ray would tell its control store of each question, ten million of them.
            enable_task_events=False,
            runtime_env={"env_vars": self.environment},
        )
        log = self.logs / f"engine-{self.name}-{number}.log"
        actor = actor_class.remote(
            str(self.folder), arguments, self.seed, log, adapter=self.adapter, secrets=self.secrets
        )
        return StartedEngine(actor, group)


def bundles_of(teacher: Teacher) -> list[dict[str, float]]:
    """What each GPU worker of an engine over several machines needs; vLLM wants one GPU in each."""
    workers = int(teacher.device.gpus)
    return [{"GPU": 1, "CPU": teacher.device.cpus / workers}] * workers


def environment_of(teacher: Teacher) -> dict[str, str]:
    """Variables of an engine's process: what vLLM needs here, and what the recipe says openly."""
    given = {k: v for k, v in teacher.environment.items() if not REFERENCE.fullmatch(v)}
    return {**_for_cores(teacher), **given}


def secrets_of(teacher: Teacher) -> dict[str, str]:
    """Variables of an engine's process that the recipe takes from this process's environment.

    They go to the engine by themselves: Ray writes the others into its logs, which a run keeps.

    Raises:
        UseError: The recipe refers to a variable that is not set here.
    """
    found = {}
    for name, value in teacher.environment.items():
        reference = REFERENCE.fullmatch(value)
        if reference is not None:
            if reference[1] not in os.environ:
                cause, mend = f"{reference[1]} is not set here.", f"Export {reference[1]}."
                raise UseError(f"environment.{name}", cause, mend)
            found[name] = os.environ[reference[1]]
    return found


def _for_cores(teacher: Teacher) -> dict[str, str]:
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
