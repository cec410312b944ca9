"""Token budgets, by hand-worked examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batches import Budget, Tokens, cut, padded


def tokens(length, first=1):
    return Tokens(list(range(first, first + length)), [0] * length)


def test_a_budget_is_used_by_the_longest_times_their_number():
    budget = Budget(sequences=8, tokens=64)
    assert budget.used([[tokens(3), tokens(5)], [tokens(10)]]) == 30
    # Short ones use it up by their number: 8 of them are all of it.
    assert budget.used([[tokens(1)] * 8]) == 64
    assert budget.used([[tokens(1)] * 4]) == 32


def test_like_stands_beside_like():
    sequences = [tokens(length) for length in (9, 2, 3, 10, 2)]
    assert cut(sequences, Budget(sequences=3, tokens=20)) == [[1, 4, 2], [0, 3]]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(1, 10),
    st.integers(1, 100),
)
def test_every_sequence_is_in_one_piece_within_the_budget(lengths, most, size):
    budget = Budget(most, size)
    sequences = [tokens(length) for length in lengths]
    pieces = cut(sequences, budget)
    assert sorted(number for piece in pieces for number in piece) == list(range(len(lengths)))
    for piece in pieces:
        longest = max(lengths[number] for number in piece)
        assert len(piece) == 1 or budget.fits(len(piece), longest)
        used = budget.used([[sequences[number] for number in piece]])
        assert used <= budget.tokens or longest > budget.tokens


def test_padding_is_masked():
    one, two = tokens(2), Tokens([7, 8, 9], [0, 1, 1])
    found = padded([one, two], pad=5)
    assert found["input_ids"].tolist() == [[1, 2, 5], [7, 8, 9]]
    assert found["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert found["token_type_ids"].tolist() == [[0, 0, 0], [0, 1, 1]]
    assert all(array.dtype == np.int64 for array in found.values())


@pytest.mark.parametrize(("longest", "fits"), [(5, True), (6, False)])
def test_fits(longest, fits):
    assert Budget(4, 20).fits(4, longest) == fits
