"""What a killed training goes on from, and what the finished student is made of.

Ray Train keeps two checkpoints at most: the one with the highest score and the latest. Every worker
writes its part of each, in DeepSpeed's own form.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray.train
import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from ray.train import Checkpoint, CheckpointUploadMode

from core.run import Folder

TAG = "engine"

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
    """Sum over this epoch's rows so far, each loss times its row's weight."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry for each finished epoch."""
    resumed: list[int] = field(default_factory=list)
    """Steps at which an attempt went on from a checkpoint of the one before."""


def save(
    engine: Any, storage: Folder, state: State, score: float, sample: list[list[float]]
) -> None:
    """Write and report a checkpoint; every worker calls this at the same step.

    Args:
        engine: DeepSpeed's.
        storage: Ray Train's folder of this training.
        state: Goes into the checkpoint.
        score: The checkpoint with the highest one becomes the student.
        sample: The model's logits for a few rows, to check the student's against.
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
        engine.save_checkpoint(folder, tag=TAG, client_state={"state": asdict(state)})
        ray.train.report(
            {"score": score, "epoch": len(state.history), "sample": sample},
            checkpoint=Checkpoint.from_directory(folder),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=upload,
        )


def resume(engine: Any) -> State:
    """Load the latest checkpoint into the engine, if there is one."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return State()
    with checkpoint.as_directory() as folder:
        _, client_state = engine.load_checkpoint(folder, tag=TAG)
    state = State(**client_state["state"])
    state.resumed.append(state.step)
    return state


@dataclass(frozen=True)
class Best:
    """The weights that become the student."""

    weights: dict[str, torch.Tensor]
    """float32, whole, on the CPU."""
    epoch: int
    """Counted from 1."""
    sample: list[list[float]]


def best(zero_stage: int) -> Best:
    """Read the best checkpoint; its parts are put together without the engine."""
    reported = ray.train.get_all_reported_checkpoints()
    top = max(reported, key=lambda entry: entry.metrics["score"])
    with top.checkpoint.as_directory() as folder:
        if zero_stage == 0:
            path = Path(folder, TAG, "mp_rank_00_model_states.pt")
            weights = torch.load(path, map_location="cpu", weights_only=False)["module"]
        else:
            weights = get_fp32_state_dict_from_zero_checkpoint(folder, tag=TAG)
    return Best(weights, top.metrics["epoch"], top.metrics["sample"])
