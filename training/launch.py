"""Ray Train around the workers: resources, environment, and errors that find their way back."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from typing import Any

from ray.train import (
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchConfig, TorchTrainer

from core.errors import StillhouseError, WorkError
from core.placement import label_selector
from core.recipe_students import Train
from training.job import Job

# How often Ray Train's controller looks at its workers: each look may end a checkpoint's report or
# the training, and the default of two seconds is long beside a small student's.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")

RESTARTS = 3
"""Times that lost workers are replaced. Those lost with a machine that was taken away after notice
do not count, and an error that would come again ends the training (`NoteBox.fail`)."""


def launch(job: Job) -> Future[dict[str, Any]]:
    """Start a training, or go on with the one in its storage, in a thread.

    In a thread of its own because the caller has the progress to watch, and because on the main
    thread Ray Train would keep the handling of Ctrl-C for itself.

    Returns:
        Gives the facts of the training, or raises a StillhouseError.
    """
    parent, _, name = job.storage.location.rpartition("/")
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if job.train.device.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=_workers(job.train),
            use_gpu=job.train.device.gpus > 0,
            resources_per_worker=_resources(job),
            label_selector=label_selector("trainer", job.train.device.kind) or None,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=parent,
            # Beside the best one, Ray Train always keeps the latest.
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="score"),
            failure_config=FailureConfig(max_failures=RESTARTS),
            worker_runtime_env={"env_vars": _environment(job)},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    outcome: Future[dict[str, Any]] = Future()

    def fit() -> None:
        try:
            outcome.set_result(trainer.fit().return_value)
        except BaseException as error:  # handed to whoever asks for the result
            outcome.set_exception(_explain(error, job.name))

    threading.Thread(target=fit, daemon=True, name=f"train {job.name}").start()
    return outcome


def _work(config: dict[str, Any]) -> dict[str, Any] | None:
    from training.loop import run  # the driver has no use for DeepSpeed

    return run(config["job"])


def _workers(train: Train) -> int | tuple[int, int]:
    """A fixed number, or what Ray Train may choose from, again after every loss of a worker."""
    bounds = train.worker_bounds
    return bounds.min if bounds.min == bounds.max else (bounds.min, bounds.max)


def _resources(job: Job) -> dict[str, float]:
    resources = {"CPU": job.train.device.cpus}
    if job.train.device.gpus:
        resources["GPU"] = job.train.device.gpus
    return resources


def _environment(job: Job) -> dict[str, str]:
    return {
        "DS_ACCELERATOR": "cuda" if job.train.device.gpus else "cpu",
        "HF_HUB_OFFLINE": "1",  # the base is a folder by now
        # Threads that spin while they wait slow a busy machine down tenfold.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _explain(error: BaseException, student: str) -> StillhouseError:
    """The error of ours that a worker raised, or the first of theirs in our form."""
    failures = [error]
    if isinstance(error, WorkerGroupError):
        failures = list(error.worker_failures.values())
    for failure in failures:
        if isinstance(failure, StillhouseError):
            return failure
    lines = str(failures[0]).strip().splitlines() or [""]
    explained = WorkError(
        f"training of '{student}'",
        f"{type(failures[0]).__name__}: {lines[-1]}",
        "Run the same command again to go on from its last checkpoint. The workers' output is in "
        "the run's logs, under ray/.",
    )
    explained.__cause__ = error
    return explained
