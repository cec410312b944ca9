import random
from dataclasses import dataclass

import numpy as np
import pytest

from training.batches import epoch_batches
from training.units import MOST_PADDING, Units, deal, padding_share, passes_of

LENGTHS = [random.Random(i).randint(6, 40) for i in range(1000)]


@dataclass(frozen=True)
class Plain(Units):
    """Units without a model."""

    def coefficients(self, units):
        raise NotImplementedError

    def losses(self, model, units, device):
        raise NotImplementedError


def one_a_row(lengths):
    """Rows of one sequence."""
    return rows_of([[(length,)] for length in lengths])


def rows_of(rows):
    """Rows of several units, each of one sequence with one or more sides."""
    sides = np.array([unit for units in rows for unit in units])
    of_row, first = [], 0
    for units in rows:
        of_row.append(list(range(first, first + len(units))))
        first += len(units)
    return Plain(of_row, sides, np.ones(len(sides), dtype=int), sides.sum(axis=1), cut=0)


def batches_of(units, size=16):
    return epoch_batches(range(len(units.of_row)), units.row_shapes, size, seed=0, epoch=0)


# What a row asks for: to choose; to answer, and to give a reason; to write behind what is read.
DRAW = random.Random(7)
TASKS = {
    "one length": one_a_row(LENGTHS),
    "answers and rationales": rows_of(
        [[(n + 3,)] + [(n + DRAW.randint(15, 60),)] * (DRAW.random() < 0.8) for n in LENGTHS]
    ),
    "two sides": rows_of([[(n, DRAW.randint(4, 60))] for n in LENGTHS]),
    "answers and rationales of two sides": rows_of(
        [[(n, DRAW.randint(2, 4)), (n, DRAW.randint(10, 60))] for n in LENGTHS]
    ),
}


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("at_once", [None, 1, 3])
@pytest.mark.parametrize("task", TASKS)
def test_workers_share_a_batch(workers, at_once, task):
    units = TASKS[task]
    for batch in batches_of(units)[:20]:
        numbers = units.of(batch)
        passes = passes_of(numbers, units, workers, at_once)
        shares = [[deal(one, units, rank, workers) for rank in range(workers)] for one in passes]
        everything = [unit for dealt in shares for share in dealt for unit in share]
        assert sorted(everything) == sorted(numbers)
        uneven = 0
        for dealt in shares:
            sizes = {len(share) for share in dealt}
            assert max(sizes) <= (at_once or len(numbers))
            uneven += len(sizes) > 1
        assert uneven <= 1, "all but one pass give every worker as many"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("at_once", [None, 2])
def test_padding_is_little(task, workers, at_once):
    units = TASKS[task]
    share = padding_share(batches_of(units, 32), units, workers, at_once)
    assert 0 < share < MOST_PADDING


def test_rows_of_like_shape_come_together_and_are_cut_only_where_that_helps():
    units = TASKS["one length"]
    assert all(len(passes_of(batch, units, 1, None)) <= 2 for batch in batches_of(units))
    units = TASKS["answers and rationales"]
    cut = [passes_of(units.of(batch), units, 1, None) for batch in batches_of(units)]
    assert sum(map(len, cut)) / len(cut) < 3
    # Not even cut apart do they have less: a question's own choices have different lengths.
    alone = Plain([[0], [1]], np.array([[9], [9]]), np.array([5, 5]), np.array([30, 30]), cut=0)
    assert passes_of([0, 1], alone, 1, None) == [[0, 1]]


def test_a_pass_is_cut_where_it_saves_most():
    units = one_a_row([11, 50, 11, 11, 52, 11, 12])
    assert passes_of(range(7), units, 1, None) == [[0, 2, 3, 5, 6], [1, 4]]
    # Two workers have as many of each pass, but for the last.
    assert passes_of(range(7), units, 2, None) == [[0, 2, 3, 5], [6, 1], [4]]


def test_padding_worked_by_hand():
    units = one_a_row([10, 5])
    assert passes_of([0, 1], units, 1, None) == [[1], [0]]
    assert padding_share([[0, 1]], units, 1, None) == 0
    units = one_a_row([100, 96])
    assert padding_share([[0, 1]], units, 1, None) == pytest.approx(4 / 200)
    assert padding_share([[0, 1]], units, 2, None) == 0
    assert padding_share([[0, 1]], units, 1, 1) == 0
    # A row of three sequences of 40, 60 and 50 tokens beside one of a single one of 40: 60 * 4 are
    # fed, or 60 * 3 and 40.
    sides, sequences = np.array([[60], [40]]), np.array([3, 1])
    several = Plain([[0], [1]], sides, sequences, np.array([150, 40]), cut=0)
    assert several.padded([0, 1]) == 240
    assert passes_of([0, 1], several, 1, None) == [[1], [0]]
    assert padding_share([[0, 1]], several, 1, None) == pytest.approx(30 / 220)
    # Prompts of 20 and 19, targets of 5 and 6, each padded for itself.
    halves = rows_of([[(20, 5)], [(19, 6)]])
    assert halves.padded([0, 1]) == 52
    assert padding_share([[0, 1]], halves, 1, None) == pytest.approx(2 / 52)
