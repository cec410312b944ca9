"""A training under DeepSpeed goes on with another number of workers."""

from __future__ import annotations

import json

import pytest

from tests.launcher import launch

STAGES = [0, 1, 2, 3]


def test_deepspeed_goes_on_exactly_where_it_was(tmp_path):
    def losses(name: str, workers: int, first: int, last: int) -> list[list[float]]:
        told = {"folder": str(tmp_path / name), "steps": [first, last], "stages": STAGES}
        return launch("tests.zero_worker", json.dumps(told), tmp_path, workers)[0]

    alone = losses("alone", 1, 0, 14)
    begun, ended = losses("broken", 2, 0, 6), losses("broken", 1, 6, 14)
    for stage, whole, first, then in zip(STAGES, alone, begun, ended, strict=True):
        assert whole[-1] < 0.8 * whole[0], "it learns"
        assert first + then == pytest.approx(whole, rel=1e-4), f"ZeRO {stage}"
