"""The training stage on a real local Ray, with an encoder and real DDP and DeepSpeed."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch
from transformers import AutoTokenizer

from core.errors import UseError, WorkError
from core.identity import folder_digest
from core.stage import Progress
from tests.training_case import (
    CHOICES,
    TRAIN,
    Case,
    Driver,
    make_rows,
    start_ray,
    without_dropout,
)
from training.checkpoint_list import PREFIX, STATE
from training.stage import train

# 45 steps an epoch; the slow part is Ray Train's taking in of a checkpoint.
LONG = TRAIN.model_copy(update={"epochs": 3, "checkpoint_every": 20})
LONG_ROWS = 400


@pytest.fixture(scope="module")
def cluster():
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def base(tiny_encoder, tmp_path_factory) -> Path:
    """The tiny encoder without dropout, which would differ between one worker and two."""
    return without_dropout(tiny_encoder, tmp_path_factory.mktemp("encoder") / "base")


@pytest.fixture(scope="module")
def finished(cluster, base, tmp_path_factory) -> tuple[Case, dict]:
    """A training by one worker. 91 rows are 82 to train on: the last batch of an epoch has two."""
    case = Case(tmp_path_factory.mktemp("finished"), base, make_rows(91), TRAIN)
    return case, case.run()


def test_a_student_learns(finished):
    case, facts = finished
    losses = [entry["train_loss"] for entry in facts["history"]]
    assert losses[-1] < 0.6 * losses[0]
    assert facts["history"][-1]["validation_accuracy"] > 0.8
    answers = case.answers([row["question"] for row in case.rows])
    right = sum(a == row["answer"] for a, row in zip(answers, case.rows, strict=True))
    assert right > 0.9 * len(case.rows)


def test_the_facts_tell_of_the_training(finished):
    case, facts = finished
    assert facts["steps"] == 88
    assert facts["epochs"] == 8
    assert [entry["step"] for entry in facts["history"]] == list(range(11, 89, 11))
    assert [entry["epoch"] for entry in facts["history"]] == list(range(1, 9))
    best = min(facts["history"], key=lambda entry: entry["validation_loss"])
    assert facts["best_epoch"] == best["epoch"]
    assert (facts["training_rows"], facts["validation_rows"]) == (82, 9)
    long = [row for row in case.rows if len(row["question"].split()) > 8]
    assert facts["cut_rows"] == len(long)
    assert 0 <= facts["padding_share"] < 0.05
    assert facts["parameters"] == sum(w.numel() for w in case.weights().values())
    assert facts["samples_per_second"] == pytest.approx(8 * 82 / facts["seconds"])


def test_the_student_is_a_plain_folder(finished):
    case, facts = finished
    assert facts["student"] == "student"
    names = {path.name for path in case.student.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    config = json.loads((case.student / "config.json").read_text())
    assert config["id2label"] == {str(i): choice for i, choice in enumerate(CHOICES)}
    assert "tiny" in (case.student / "README.md").read_text()
    assert AutoTokenizer.from_pretrained(case.student).model_max_length == 10
    left = {path.name for path in (case.folder / "train").iterdir()}
    assert left == {"student", "student.json", "metrics.jsonl"}


def test_progress_and_ledger_follow_the_training(finished):
    case, facts = finished
    done = [progress.done for progress in case.progress]
    assert done == sorted(done)
    assert (done[-1], case.progress[-1].total) == (88, 88)
    last = case.entries[-1]
    assert (last.stage, last.device, last.rows) == ("train-student", "cpu-core", 82)
    assert last.startup_seconds > 0
    assert last.useful_seconds >= facts["seconds"]
    assert last.device_seconds <= last.wall_seconds
    assert case.progress[-1].used[0].device_seconds == pytest.approx(last.device_seconds, abs=0.1)


def test_a_finished_training_is_not_done_twice(finished):
    case, facts = finished
    before = case.student.stat().st_mtime_ns
    assert case.run() == facts
    assert case.student.stat().st_mtime_ns == before


@pytest.mark.parametrize("zero_stage", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_two_workers_train_as_one(finished, base, tmp_path, zero_stage):
    one, facts = finished
    shared = one.train.model_copy(update={"workers": 2, "zero_stage": zero_stage})
    two = Case(tmp_path, base, one.rows, shared)
    for alone, together in zip(facts["history"], two.run()["history"], strict=True):
        assert together == pytest.approx(alone, rel=3e-3)
    weights = two.weights()
    for name, weight in one.weights().items():
        # Attention does not change with a bias of the keys: its gradient is rounding noise, which
        # Adam scales up, in another direction for every order of summation.
        if not name.endswith("attention.self.key.bias"):
            torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=3e-3)


@pytest.mark.slow
def test_a_killed_training_ends_as_if_nothing_had_happened(cluster, tiny_encoder, tmp_path, capfd):
    whole = Case(tmp_path / "whole", tiny_encoder, make_rows(LONG_ROWS), LONG)
    capfd.readouterr()
    left_alone = whole.run()["history"]
    assert capfd.readouterr() == ("", ""), "training wrote to the terminal"

    killed = Case(tmp_path / "killed", tiny_encoder, make_rows(LONG_ROWS), LONG)
    driver = Driver(killed)
    driver.wait_for(lambda: killed.reports >= 2)
    assert driver.kill() == "", "training wrote to the terminal"
    assert not killed.student.exists()

    history = killed.run()["history"]
    taken_up = next(progress.done for progress in killed.progress if progress.done)
    assert taken_up >= 40, "began anew"
    # The rows of every step, their order and the dropout were those of the training left alone:
    # had a row come twice, or not at all, the weights would differ.
    assert history == left_alone
    weights = whole.weights()
    for name, weight in killed.weights().items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-6)


class OutOfBudgetError(Exception):
    """What a display raises to stop a run."""


def stop_on_the_way(case: Case) -> dict:
    """Stop a training after some steps more than it had, and return its latest state."""

    def spend(progress: Progress) -> None:
        if progress.done > before:
            raise OutOfBudgetError

    before = case.state.get("step", 0)
    with pytest.raises(OutOfBudgetError):
        train(replace(case.context(), show=spend))
    assert case.state["step"] > before
    return case.state


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [None, 0, 2, 3])
def test_a_stopped_training_goes_on_from_what_can_be_read(
    cluster, tiny_encoder, tmp_path, zero_stage
):
    endless = LONG.model_copy(
        update={"epochs": 1000, "checkpoint_every": 10_000, "zero_stage": zero_stage}
    )
    case = Case(tmp_path, tiny_encoder, make_rows(LONG_ROWS), endless)
    stopped = stop_on_the_way(case)
    assert stopped["resumed"] == []
    assert ray.available_resources()["CPU"] == 8, "a worker is still there"

    # A kill can fall into Ray Train's writing of its list, and into that of a checkpoint.
    case.snapshot.write_text(case.snapshot.read_text()[:40])
    shutil.copytree(case.checkpoints[-1], case.snapshot.parent / f"{PREFIX}99999999")
    (case.snapshot.parent / f"{PREFIX}99999999" / STATE).unlink()
    again = stop_on_the_way(case)
    assert again["resumed"] == [stopped["step"]]

    # A disk can lose what comes last of a file. The earlier checkpoint is the best epoch's.
    while len(case.checkpoints) < 2:
        stop_on_the_way(case)
    earlier, latest = case.checkpoints
    file = max(latest.rglob("*.pt"), key=lambda path: path.stat().st_size)
    os.truncate(file, file.stat().st_size // 2)
    best, before = folder_digest(earlier), latest.stat().st_mtime_ns
    with pytest.raises(WorkError, match=f"{latest.name}: it cannot be read.*Delete this folder"):
        stop_on_the_way(case)
    assert (folder_digest(earlier), latest.stat().st_mtime_ns) == (best, before)
    shutil.rmtree(latest)
    step = case.state["step"]
    assert stop_on_the_way(case)["resumed"][-1] == step


@pytest.mark.parametrize(
    ("batch_size", "sign"),
    [
        pytest.param(8, "after [1-9] of 11 steps: the loss became", id="seen in the next loss"),
        pytest.param(
            100,
            "after 1 of 1 steps: the loss on held-out rows became",
            id="by the last step",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_training_that_diverges_says_so(cluster, tiny_encoder, tmp_path, batch_size, sign):
    wild = {"epochs": 1, "learning_rate": 1e30, "warmup_share": 0.0, "checkpoint_every": 1}
    wild |= {"batch_size": batch_size}
    case = Case(tmp_path, tiny_encoder, make_rows(91), TRAIN.model_copy(update=wild))
    with pytest.raises(WorkError, match=f"{sign}.* Lower the learning rate, which is 1e\\+30"):
        case.run()
    assert not case.student.exists()
    # What there was before is left, and is whole.
    assert [(one / STATE).is_file() for one in case.checkpoints] == [True] * (batch_size == 8)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        pytest.param({"answer": 3}, "label 3 is outside the 3 choices", id="label"),
        pytest.param({"choices": ["a", "b"]}, "its choices are", id="choices"),
        pytest.param({"logits": [0.0, 1.0]}, "not the scores of 3 choices", id="too few scores"),
        pytest.param({"logits": [0.0, 1.0, math.nan]}, "not the scores", id="unknown score"),
        pytest.param({"logits": [-math.inf] * 3}, "not the scores", id="impossible scores"),
        pytest.param({"answer": None, "logits": None}, "neither a label", id="nothing to learn"),
        pytest.param({"weight": 0.0}, "not a positive number", id="weight"),
    ],
)
def test_a_bad_row_is_named(tiny_encoder, tmp_path, change, cause):
    rows = make_rows(20)
    rows[7] |= change
    with pytest.raises(UseError, match=f"training row row-7: .*{cause}"):
        Case(tmp_path, tiny_encoder, rows, TRAIN).run()


def test_no_rows(tiny_encoder, tmp_path):
    with pytest.raises(UseError, match="no rows to train on"):
        Case(tmp_path, tiny_encoder, [], TRAIN).run()


def test_pickled_weights_are_refused(tiny_encoder, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_encoder, base)
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(UseError, match="no weights in safetensors"):
        Case(tmp_path, base, make_rows(20), TRAIN).run()
