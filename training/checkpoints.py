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

from core.errors import StillhouseError, WorkError
from core.identity import content_id
from core.models import cache_folder, make_cache
from core.run import Folder
from training.checkpoint_list import DELETE, PREFIX, STATE
from training.strategy import Strategy

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
    name = f"{PREFIX}{state.step:08d}"
    # What a kill left at this step may be of another number of workers: their parts would mix.
    if dist.get_rank() == 0:
        storage.child(name).remove()
    dist.barrier()
    if storage.local is not None:
        place: AbstractContextManager[str] = nullcontext(str(storage.local / name))
        upload = CheckpointUploadMode.NO_UPLOAD
    else:
        place = tempfile.TemporaryDirectory(prefix="stillhouse-checkpoint-")
        upload = CheckpointUploadMode.SYNC
    with place as folder:
        Path(folder).mkdir(exist_ok=True, parents=True)
        strategy.save(Path(folder))
        if sample is not None and dist.get_rank() == 0:
            save_file({"logits": sample}, Path(folder, SAMPLE))
        dist.barrier()  # all parts are there
        if dist.get_rank() == 0:
            written = {"workers": dist.get_world_size(), "score": score, **asdict(state)}
            Folder(folder).write(STATE, json.dumps(written).encode())
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
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        with readable(Path(folder)):
            written = json.loads(Path(folder, STATE).read_text())
        del written["score"]
        workers = written.pop("workers")
        state = State(**written)
        state.resumed.append(state.step)
        yield Found(Path(folder), workers, state)


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Where a checkpoint is read: what goes wrong is told with the folder and a way on."""
    try:
        yield
    except StillhouseError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise WorkError(
            f"checkpoint {folder}",
            f"it cannot be read: {type(error).__name__}: {first}",
            DELETE,
        ) from error


@contextmanager
def universal(
    found: Found, storage: Folder, convert: Callable[[Path, Path], None]
) -> Iterator[Path]:
    """A checkpoint in a form that any number of workers can read, made once on each machine.

    Args:
        found: In the form of the workers that wrote it.
        storage: Ray Train's folder of this training.
        convert: Reads one folder and writes the other.
    """
    target = cache_folder() / "universal" / content_id(storage.location, found.state.step)
    first = ray.train.get_context().get_local_rank() == 0
    if first:
        make_cache(target.parent)
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
        with readable(Path(folder)):
            sample = load_file(Path(folder, SAMPLE))["logits"]
        yield Best(Path(folder), top.metrics["epoch"], sample)
