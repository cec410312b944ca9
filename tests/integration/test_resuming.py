"""A training loses a worker, then its driver, and goes on with another number of workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.launcher import launch
from tests.training_case import TRAIN, Case, Driver, make_rows, make_texts, without_dropout

# 400 rows are 360 to train on: 45 steps an epoch. As many workers as there are cores, up to two.
ELASTIC = {"epochs": 2, "checkpoint_every": 10, "workers": {"min": 1, "max": 2}}
ROWS, STEPS_PER_EPOCH, STEPS = 400, 45, 90

STAGES = [0, 1, 2, 3]
STRATEGIES = {"DDP": None, "ZeRO 2": 2, "ZeRO 3": 3}


@pytest.fixture(scope="module")
def base(tiny_encoder, tmp_path_factory) -> Path:
    return without_dropout(tiny_encoder, tmp_path_factory.mktemp("encoder") / "base")


@pytest.fixture(scope="module")
def unbroken(base, tmp_path_factory) -> tuple[Case, dict]:
    """One worker's training that is left alone."""
    case = encoder_case(tmp_path_factory.mktemp("unbroken"), base, None)
    return case, Driver(case, cores=1).finish()


def encoder_case(folder: Path, base: Path, zero_stage: int | None) -> Case:
    train = TRAIN.model_validate({**TRAIN.model_dump(), **ELASTIC, "zero_stage": zero_stage})
    return Case(folder, base, make_rows(ROWS), train)


def broken(case: Case, before: int, after: int) -> dict:
    """Kill a worker and the driver of a training on some cores, and end it on others."""
    driver = Driver(case, cores=before)
    driver.wait_for(lambda: case.reports >= 1)
    driver.kill_worker()
    driver.wait_for(lambda: case.state.get("resumed"))
    driver.kill()
    assert not case.student.exists()
    return Driver(case, cores=after).finish()


def check(case: Case, facts: dict, unbroken: tuple[Case, dict], after: int) -> None:
    """That a broken training has gone the unbroken one's way."""
    alone, left_alone = unbroken
    first, second = facts["resumed"]
    assert 0 < first <= second < STEPS
    assert second % STEPS_PER_EPOCH, "killed between two epochs"
    assert facts["workers"] == after
    assert facts["steps"] == STEPS
    for found, wanted in zip(facts["history"], left_alone["history"], strict=True):
        assert found["validation_loss"] == pytest.approx(wanted["validation_loss"], rel=0.01)
    # Every step once, each with the rows that it has in the unbroken training, where they are each
    # row once an epoch: with other rows the losses would differ by far more.
    assert [entry["step"] for entry in case.metrics if "loss" in entry] == [*range(1, STEPS + 1)]
    assert case.losses == pytest.approx(alone.losses, rel=0.01, abs=1e-3)


@pytest.mark.slow
def test_ddp_goes_on_with_another_number_of_workers(base, unbroken, tmp_path):
    case = encoder_case(tmp_path, base, None)
    check(case, broken(case, before=2, after=1), unbroken, after=1)


@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_deepspeed_goes_on_exactly_where_it_was(tmp_path, before, after):
    def losses(name: str, workers: int, first: int, last: int) -> list[list[float]]:
        told = {"folder": str(tmp_path / name), "steps": [first, last], "stages": STAGES}
        return launch("tests.zero_worker", json.dumps(told), tmp_path, workers)[0]

    alone = losses("alone", 1, 0, 14)
    begun, ended = losses("broken", before, 0, 6), losses("broken", after, 6, 14)
    for stage, whole, first, then in zip(STAGES, alone, begun, ended, strict=True):
        assert whole[-1] < 0.8 * whole[0], "it learns"
        assert first + then == pytest.approx(whole, rel=1e-4), f"ZeRO {stage}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "before", "after"),
    [("DDP", 1, 2), ("ZeRO 2", 2, 1), ("ZeRO 2", 1, 2), ("ZeRO 3", 2, 1), ("ZeRO 3", 1, 2)],
)
def test_every_strategy_goes_on(base, unbroken, tmp_path, strategy, before, after):  # noqa: PLR0917
    case = encoder_case(tmp_path, base, STRATEGIES[strategy])
    check(case, broken(case, before, after), unbroken, after)


@pytest.mark.slow
def test_adapters_go_on_under_zero_3(tiny_teacher, tmp_path):
    """Of a model of which most is not learnt, and so is in no checkpoint."""
    train = TRAIN.model_validate(
        {**TRAIN.model_dump(), **ELASTIC, "zero_stage": 3, "lora": {"rank": 8}, "max_length": 40}
    )
    alone, case = (
        Case(tmp_path / name, tiny_teacher, make_texts(ROWS), train, "causal")
        for name in ("alone", "broken")
    )
    check(case, broken(case, before=2, after=1), (alone, Driver(alone, cores=1).finish()), after=1)
