"""Ray Train's list of checkpoints is made anew from those that are there and whole."""

from __future__ import annotations

import json

import pytest

from core.errors import WorkError
from core.run import Folder
from training.checkpoint_list import LIST, STATE, mend_list


@pytest.fixture(params=["disk", "store"])
def storage(request, tmp_path) -> Folder:
    """A training's checkpoints: the best, one between, and the latest; and one cut short."""
    place = str(tmp_path / "run")
    folder = Folder(place if request.param == "disk" else f"file://{place}")
    for step, score in ((6, -0.5), (9, -1e300), (12, -0.7)):
        state = {"step": step, "score": score, "history": [{}] * (step // 6)}
        folder.child(f"checkpoint_{step}").write_json(STATE, state)
    folder.child("checkpoint_15").write("weights.pt", b"")
    listed = [{"checkpoint_dir_name": f"checkpoint_{step}"} for step in (9, 12, 6)]
    folder.write_json(LIST, {"checkpoint_results": listed})
    return folder


def names(storage: Folder) -> list[str]:
    found = storage.read_json(LIST)
    assert found["latest_checkpoint_result"] in found["checkpoint_results"]
    assert found["current_report_index"] == len(found["checkpoint_results"])
    reported = dict(
        zip(found["checkpoint_report_indices"], found["checkpoint_results"], strict=True)
    )
    steps = [reported[number]["metrics"]["step"] for number in range(len(reported))]
    assert steps == sorted(steps)
    assert found["latest_checkpoint_result"]["metrics"]["step"] == steps[-1]
    return [entry["checkpoint_dir_name"] for entry in found["checkpoint_results"]]


def test_the_best_comes_last_and_what_was_cut_short_goes(storage):
    mend_list(storage)
    assert names(storage) == ["checkpoint_9", "checkpoint_12", "checkpoint_6"]
    assert storage.folders() == ["checkpoint_12", "checkpoint_6", "checkpoint_9"]


def test_ray_train_reads_the_list(storage):
    from ray.train import CheckpointConfig
    from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
    from ray.train.v2._internal.execution.storage import StorageContext

    mend_list(storage)
    parent, _, name = storage.location.rpartition("/")
    keeping = CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="score")
    found = CheckpointManager(keeping, StorageContext(parent, name))
    assert found.latest_checkpoint_result.metrics["step"] == 12
    assert found.best_checkpoint_result.metrics == {"score": -0.5, "epoch": 1, "step": 6}


def test_one_that_was_deleted_by_hand_is_not_missed(storage):
    storage.child("checkpoint_12").remove()
    mend_list(storage)
    assert names(storage) == ["checkpoint_9", "checkpoint_6"]
    for name in storage.folders():
        storage.child(name).remove()
    mend_list(storage)
    assert not storage.has(LIST), "the training begins anew"


def test_a_list_that_a_kill_has_torn_is_written_anew(storage):
    if storage.local is None:
        pytest.skip("an object store never tears it")
    storage.write(LIST, storage.read(LIST)[:40])
    mend_list(storage)
    assert names(storage) == ["checkpoint_9", "checkpoint_12", "checkpoint_6"]


def test_a_store_may_have_parts_of_a_checkpoint_that_nobody_took_in(storage):
    storage.child("checkpoint_18").write_json(STATE, {"step": 18, "score": -0.1, "history": []})
    mend_list(storage)
    assert ("checkpoint_18" in names(storage)) == (storage.local is not None)


def test_a_state_that_cannot_be_read_is_told_and_left(storage):
    place = storage.child("checkpoint_12")
    place.write(STATE, json.dumps({"step": 12}).encode()[:-3])
    with pytest.raises(WorkError, match=r"checkpoint_12: its state.json cannot be read.*Delete"):
        mend_list(storage)
    assert place.has(STATE)
    assert storage.child("checkpoint_6").has(STATE)


def test_nothing_is_there_before_the_first_attempt(tmp_path):
    mend_list(Folder(str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()
