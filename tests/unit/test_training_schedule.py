import random

import numpy as np
import pytest

from core.recipe_students import Train
from training.batches import alike, epoch_batches, split
from training.schedule import Schedule, plan

LENGTHS = np.array([[random.Random(i).randint(6, 40)] for i in range(1000)])


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


def test_groups_of_one_length_are_those_of_a_sorting():
    groups = alike(range(1000), LENGTHS, 16)
    by_length = sorted(range(1000), key=lambda row: LENGTHS[row, 0])
    assert flat(groups) == by_length
    assert {len(group) for group in groups[:-1]} == {16}


def test_groups_are_alike_in_two_lengths():
    # Short or long questions with short or long answers: no order by a sum tells them apart.
    kinds = [(10, 40), (40, 10), (10, 10), (40, 40)]
    shapes = np.array([kinds[i % 4] for i in range(64)])
    order = random.Random(0).sample(range(64), 64)
    for group in alike(order, shapes, 8):
        assert len({tuple(shapes[row]) for row in group}) == 1
        assert group == [row for row in order if row in group], "the order of those alike stays"
