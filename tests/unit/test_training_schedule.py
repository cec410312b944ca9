import random

import pytest

from core.recipe_students import Train
from training.batches import epoch_batches, split
from training.schedule import Schedule, plan

LENGTHS = [random.Random(i).randint(6, 40) for i in range(1000)]


def flat(batches):
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize(
    ("rows", "train", "expected"),
    [
        pytest.param(100, Train(epochs=3), Schedule(90, 10, 6, 3, 2), id="a tenth held out"),
        pytest.param(10, Train(epochs=3), Schedule(9, 1, 1, 3, 1), id="at least one held out"),
        pytest.param(9, Train(epochs=3), Schedule(9, 0, 1, 3, 1), id="too few to spare one"),
        pytest.param(10, Train(validation_share=0), Schedule(10, 0, 1, 5, 1), id="none asked for"),
        pytest.param(10, Train(validation_share=0.99), Schedule(1, 9, 1, 5, 1), id="one is left"),
        pytest.param(5, Train(min_steps=60), Schedule(5, 0, 1, 60, 6), id="repeated until enough"),
        pytest.param(40, Train(min_steps=7), Schedule(36, 4, 3, 5, 2), id="enough already"),
    ],
)
def test_plan(rows, train, expected):
    assert plan(rows, train) == expected


def test_split_parts_the_rows():
    schedule = plan(100, Train())
    training, held_out = split(schedule, seed=3)
    assert (len(training), len(held_out)) == (90, 10)
    assert sorted(training + held_out) == list(range(100))
    assert split(schedule, seed=3) == (training, held_out)
    assert split(schedule, seed=4) != (training, held_out)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 900, 1000])
def test_an_epoch_has_each_row_once(rows):
    batches = epoch_batches(range(rows), LENGTHS, 16, seed=0, epoch=0)
    assert sorted(flat(batches)) == list(range(rows))
    assert max(map(len, batches)) <= 16
    assert len(batches) == -(-rows // 16)


def test_epochs_differ_and_repeat_by_seed():
    first = epoch_batches(range(1000), LENGTHS, 16, seed=0, epoch=0)
    assert epoch_batches(range(1000), LENGTHS, 16, seed=0, epoch=0) == first
    assert epoch_batches(range(1000), LENGTHS, 16, seed=0, epoch=1) != first
    assert epoch_batches(range(1000), LENGTHS, 16, seed=1, epoch=0) != first
