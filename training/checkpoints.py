"""What a killed training goes on from, and what the finished student is made of.

    checkpoint_<step>/state.json         where the training is
    checkpoint_<step>/sample.safetensors the model's logits for a few rows, where an epoch ends
    checkpoint_<step>/...                weights and optimizer, as the strategy writes them

Ray Train keeps two at most: the one with the highest score and the latest.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray.train
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointUploadMode
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.errors import WorkError
from core.run import Folder
from training.strategy import Strategy

STATE = "state.json"
SAMPLE = "sample.safetensors"

NEVER_BEST = -sys.float_info.max
"""Score of a checkpoint in the middle of an epoch; not -inf, as Ray keeps scores in strict JSON."""


@dataclass
class State:
    """Where a training is, beside its weights."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Of training, up to here."""
    epoch_loss: float = 0.0
    """This epoch's part so far of its mean loss."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry for each finished epoch."""
    metrics: list[dict[str, float]] = field(default_factory=list)
    """What was logged, step by step."""
    resumed: list[int] = field(default_factory=list)
    """Steps at which an attempt went on from a checkpoint of the one before."""


def save(
    strategy: Strategy, storage: Folder, state: State, score: float, sample: Tensor | None
) -> None:
    """Write and report a checkpoint; every worker calls this at the same step.

    Args:
        strategy: With the model.
        storage: Ray Train's folder of this training.
        state: Where the training is.
        score: The checkpoint with the highest one becomes the student.
        sample: The model's logits for a few rows, to check the student's against; None within an
            epoch.
    """
    # A resumed training that comes by the same step again overwrites what a kill left of it.
    name = f"checkpoint_{state.step:08d}"
    if storage.local is not None:
        place: AbstractContextManager[str] = nullcontext(str(storage.local / name))
        upload = CheckpointUploadMode.NO_UPLOAD
    else:
        place = tempfile.TemporaryDirectory(prefix="stillhouse-checkpoint-")
        upload = CheckpointUploadMode.SYNC
    with place as folder:
        Path(folder).mkdir(exist_ok=True, parents=True)
        strategy.save(Path(folder))
        if dist.get_rank() == 0:
            if sample is not None:
                save_file({"logits": sample}, Path(folder, SAMPLE))
            written = {"workers": dist.get_world_size(), **asdict(state)}
            Path(folder, STATE).write_text(json.dumps(written))
        ray.train.report(
            {"score": score, "epoch": len(state.history), "step": state.step},
            checkpoint=Checkpoint.from_directory(folder),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=upload,
        )


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from."""

    folder: Path
    workers: int
    """That wrote it."""
    state: State


@contextmanager
def latest() -> Iterator[Found | None]:
    """The last checkpoint that is there, if any; its files stay while the block runs.

    Raises:
        WorkError: It cannot be read.
    """
    for checkpoint in _newest_first():
        with checkpoint.as_directory() as folder:
            if not Path(folder).is_dir():  # deleted by hand, as an error of this module advises
                continue
            with readable(Path(folder)):
                written = json.loads(Path(folder, STATE).read_text())
            workers = written.pop("workers")
            state = State(**written)
            state.resumed.append(state.step)
            yield Found(Path(folder), workers, state)
            return
    yield None


def _newest_first() -> list[Checkpoint]:
    if ray.train.get_checkpoint() is None:
        return []
    reported = ray.train.get_all_reported_checkpoints()
    ordered = sorted(reported, key=lambda entry: entry.metrics["step"], reverse=True)
    return [entry.checkpoint for entry in ordered]


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Where a checkpoint is read: what goes wrong is told with the folder and a way on."""
    try:
        yield
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise WorkError(
            f"checkpoint {folder}",
            f"it cannot be read: {type(error).__name__}: {first}",
            "Delete this folder: the same command then goes on from the checkpoint before it, or "
            "from the beginning.",
        ) from error


@contextmanager
def universal(found: Found, convert: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A checkpoint in a form that any number of workers can read, made once on each machine.

    Args:
        found: In the form of the workers that wrote it.
        convert: Reads one folder and writes the other.
    """
    name = ray.train.get_context().get_experiment_name()
    target = Path(tempfile.gettempdir(), f"stillhouse-{name}-{found.state.step}")
    first = ray.train.get_context().get_local_rank() == 0
    if first:
        shutil.rmtree(target, ignore_errors=True)  # of an attempt that was killed right here
        convert(found.folder, target)
    dist.barrier()
    yield target
    dist.barrier()
    if first:
        shutil.rmtree(target)


@dataclass(frozen=True)
class Best:
    """The checkpoint that becomes the student."""

    folder: Path
    epoch: int
    """Counted from 1."""
    sample: Tensor
    """[rows, ...] logits of the model in training."""


@contextmanager
def best() -> Iterator[Best]:
    """The one with the highest score; its files stay while the block runs."""
    reported = ray.train.get_all_reported_checkpoints()
    top = max(reported, key=lambda entry: entry.metrics["score"])
    with top.checkpoint.as_directory() as folder:
        sample = load_file(Path(folder, SAMPLE))["logits"]
        yield Best(Path(folder), top.metrics["epoch"], sample)
