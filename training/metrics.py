"""What a training tells of itself while it runs: a file in the run, and trackers by name."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

from core.errors import UseError
from training.checkpoints import State
from training.job import Job

FILE = "metrics.jsonl"
MOST_LINES = 2_000
"""Of the file: of a longer training, every so manieth step is logged."""


class Metrics:
    """Worker 0's book of losses, rates and norms."""

    def __init__(self, job: Job, state: State) -> None:
        """Open the trackers.

        Args:
            job: The training.
            state: Keeps what was logged, so that a resumed training goes on in the same file.
        """
        self._state = state
        self._folder = job.stage
        self._every = max(1, math.ceil(job.schedule.steps / MOST_LINES))
        self._trackers = [TRACKERS[name](job) for name in job.train.track]
        self._losses: list[float] = []
        self._rows = 0
        self._since = time.monotonic()

    def step(
        self, loss: float, learning_rate: float, gradient_norm: float | None, rows: int
    ) -> None:
        """Take note of a step."""
        self._losses.append(loss)
        self._rows += rows
        if self._state.step % self._every:
            return
        now = time.monotonic()
        values = {
            "step": self._state.step,
            "loss": math.fsum(self._losses) / len(self._losses),
            "learning_rate": learning_rate,
            "gradient_norm": gradient_norm,
            "rows_per_second": self._rows / max(now - self._since, 1e-9),
        }
        self._log(values)
        self._losses, self._rows, self._since = [], 0, now

    def epoch(self, entry: dict[str, Any]) -> None:
        """Take note of an epoch: an entry of `State.history`."""
        self._log(entry)

    def write(self) -> None:
        """Bring the file up to date, as a whole: an object store cannot append."""
        self._folder.write(FILE, "".join(map(_line, self._state.metrics)).encode())

    def close(self) -> None:
        """Write all and close the trackers."""
        self.write()
        for tracker in self._trackers:
            tracker.close()

    def _log(self, values: dict[str, float | None]) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        self._state.metrics.append(known)
        for tracker in self._trackers:
            tracker.log(known)


def _line(values: dict[str, float]) -> str:
    return json.dumps(values) + "\n"


class TensorBoard:
    """Event files in the stage's folder."""

    def __init__(self, job: Job) -> None:
        from tensorboardX import SummaryWriter

        if job.stage.local is None:
            raise UseError(
                "students: train.track",
                "tensorboard needs a run on a file system.",
                "Take mlflow or wandb for a run on an object store.",
            )
        self._writer = SummaryWriter(str(job.stage.local / "tensorboard"))

    def log(self, values: dict[str, float]) -> None:
        """Write a step or an epoch."""
        for name, value in values.items():
            if name not in ("step", "epoch"):
                self._writer.add_scalar(name, value, int(values["step"]))

    def close(self) -> None:
        """Write all."""
        self._writer.close()


class MLflow:
    """A run of MLflow, where its own environment variables say."""

    def __init__(self, job: Job) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.start_run(run_name=f"{job.recipe}: {job.name}")
        mlflow.log_params(job.train.model_dump(exclude_none=True))

    def log(self, values: dict[str, float]) -> None:
        """Send a step or an epoch."""
        named = {name: value for name, value in values.items() if name != "step"}
        self._mlflow.log_metrics(named, step=int(values["step"]))

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


class Wandb:
    """A run of Weights & Biases, where its own environment variables say."""

    def __init__(self, job: Job) -> None:
        import wandb

        config = job.train.model_dump(exclude_none=True)
        # One run for all attempts of a training.
        self._run = wandb.init(
            project=job.recipe,
            name=job.name,
            id=job.storage.location.rpartition("/")[2],
            resume="allow",
            config=config,
        )

    def log(self, values: dict[str, float]) -> None:
        """Send a step or an epoch."""
        self._run.log(values, step=int(values["step"]))

    def close(self) -> None:
        """End the run."""
        self._run.finish()


TRACKERS: dict[str, Callable[[Job], Any]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": Wandb,
}
