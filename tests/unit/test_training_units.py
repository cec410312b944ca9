import random
from dataclasses import dataclass

import pytest

from training.batches import epoch_batches
from training.units import Units, deal, padding_share

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
    rows = [[number] for number in range(len(lengths))]
    return Plain(rows, list(lengths), [1] * len(lengths), list(lengths), cut=0)


def batches():
    return epoch_batches(range(1000), LENGTHS, 16, seed=0, epoch=0)


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("at_once", [None, 1, 3])
def test_workers_share_a_batch(workers, at_once):
    for batch in batches():
        dealt = [deal(batch, LENGTHS, rank, workers, at_once) for rank in range(workers)]
        everybody = [unit for passes in dealt for one in passes for unit in one]
        assert sorted(everybody) == sorted(batch)
        assert len({len(passes) for passes in dealt}) == 1, "a pass is one of all workers"
        sizes = [sum(map(len, passes)) for passes in dealt]
        assert max(sizes) - min(sizes) <= 1
        if at_once:
            assert max(len(one) for passes in dealt for one in passes) <= at_once
        else:
            assert all(len(passes) == 1 for passes in dealt)


def test_padding_is_little():
    units = one_a_row(LENGTHS)
    for workers in (1, 4):
        assert padding_share(batches(), units, workers, None) < 0.05
        assert padding_share(batches(), units, workers, 2) < 0.05


def test_padding_worked_by_hand():
    units = one_a_row([10, 5])
    assert padding_share([[0, 1]], units, 1, None) == pytest.approx(5 / 20)
    assert padding_share([[0, 1]], units, 2, None) == 0
    assert padding_share([[0, 1]], units, 1, 1) == 0
    # A row of three sequences of 4, 6 and 2 tokens beside one of a single one of 3: 6 * 4 are fed.
    several = Plain([[0], [1]], [6, 3], [3, 1], [12, 3], cut=0)
    assert padding_share([[0, 1]], several, 1, None) == pytest.approx(9 / 24)
