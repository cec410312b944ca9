"""Ray Train's list of the checkpoints that it has taken in, put right before a training goes on.

Ray Train goes on from the latest checkpoint of a list that it keeps beside them. It writes the
list in place, so that a kill can tear it, and it refuses to begin where a checkpoint of the list is
gone. So the list is made anew from the checkpoints that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from json import JSONDecodeError
from typing import Any

from core.errors import WorkError
from core.run import Folder

LIST = "checkpoint_manager_snapshot.json"

PREFIX = "checkpoint_"
"""Of a checkpoint's folder, before the number of its step."""

STATE = "state.json"
"""Of a checkpoint, and written last: without it a kill cut the checkpoint short."""

DELETE = (
    "Delete this folder: the same command then goes on from another checkpoint that is left, or "
    "from the beginning."
)
"""The way on where a checkpoint cannot be read."""


@dataclass(frozen=True)
class _Checkpoint:
    name: str
    """Of its folder."""
    score: float
    epoch: int
    step: int

    @property
    def entry(self) -> dict[str, Any]:
        metrics = {"score": self.score, "epoch": self.epoch, "step": self.step}
        return {"version": 0, "checkpoint_dir_name": self.name, "metrics": metrics}


def mend_list(storage: Folder) -> None:
    """List the checkpoints that are whole, and remove what a kill cut short.

    Args:
        storage: Ray Train's folder of a training that nobody works on.

    Raises:
        WorkError: A checkpoint's state cannot be read.
    """
    names = [name for name in storage.folders() if name.startswith(PREFIX)]
    # An object store never tears the list, but has the workers' parts in any order.
    counting = names if storage.local is not None else _listed(storage)
    found = []
    for name in names:
        if name in counting and storage.child(name).has(STATE):
            found.append(_read(storage.child(name), name))
        else:
            storage.child(name).remove()
    if found:
        storage.write_json(LIST, _list_of(found))
    elif storage.has(LIST):
        storage.delete(LIST)


def _listed(storage: Folder) -> list[str]:
    if not storage.has(LIST):
        return []
    return [entry["checkpoint_dir_name"] for entry in storage.read_json(LIST)["checkpoint_results"]]


def _read(folder: Folder, name: str) -> _Checkpoint:
    try:
        state = folder.read_json(STATE)
        return _Checkpoint(name, state["score"], len(state["history"]), state["step"])
    except (JSONDecodeError, UnicodeDecodeError, KeyError) as error:
        cause = f"its {STATE} cannot be read: {type(error).__name__}: {error}"
        raise WorkError(f"checkpoint {folder.location}", cause, DELETE) from error


def _list_of(found: list[_Checkpoint]) -> dict[str, Any]:
    """As `ray.train.v2._internal.execution.checkpoint.checkpoint_manager` of Ray 2.60 writes it."""
    in_time = sorted(found, key=lambda one: one.step)
    best_last = sorted(found, key=lambda one: (one.score, one.step))
    return {
        "ray_version": version("ray"),
        "checkpoint_results": [one.entry for one in best_last],
        "checkpoint_report_indices": [in_time.index(one) for one in best_last],
        "latest_checkpoint_result": in_time[-1].entry,
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": len(found),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
