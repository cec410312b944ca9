"""The signals of a teaching assistant, worked out by hand and against their definitions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.signals import auroc, doubt, lowest, mean_likelihood, p_true, precision

NAN = math.nan


def test_p_true_is_the_share_of_yes():
    assert p_true(math.log(0.3), math.log(0.1)) == pytest.approx(0.75)
    assert p_true(math.log(0.1), math.log(0.3)) == pytest.approx(0.25)
    assert p_true(-3.0, -3.0) == 0.5
    # Far beyond what exp can hold.
    assert p_true(-2000.0, -1.0) == 0.0
    assert p_true(-1.0, -2000.0) == 1.0
    assert p_true(-1.0, -math.inf) == 1.0
    assert p_true(-math.inf, -1.0) == 0.0


@pytest.mark.parametrize(
    "pair", [(NAN, -1.0), (-1.0, NAN), (-math.inf, -math.inf), (math.inf, -1.0)]
)
def test_what_is_no_number_is_no_confidence(pair):
    assert p_true(*pair) is None


def test_the_likelihood_of_an_answer_does_not_depend_on_its_length():
    assert mean_likelihood([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert mean_likelihood([math.log(0.25)] * 7) == pytest.approx(0.25)
    assert mean_likelihood([-1.0, -math.inf]) == 0.0
    assert mean_likelihood([1e-9]) == 1.0, "rounding above 0"
    assert mean_likelihood([]) is None
    assert mean_likelihood([-1.0, NAN]) is None
    assert mean_likelihood([math.inf, -math.inf]) is None


def test_a_doubt_is_weighed_by_its_signals():
    # beta 0.25: 0.25*(1 - 0.5) + 0.75*(1 - 0.9)
    assert doubt([(0.25, 0.5), (0.75, 0.9)]) == pytest.approx(0.2)
    assert doubt([(1.0, 0.5), (3.0, 0.9)]) == pytest.approx(0.2), "weights are shares"
    assert doubt([(0.0, 0.0), (2.0, 0.75)]) == 0.25
    assert doubt([(1.0, 1.0), (1.0, 1.0)]) == 0.0


def test_auroc_by_hand():
    assert auroc([0.9, 0.8, 0.3, 0.1], [True, True, False, False]) == 1.0
    assert auroc([0.1, 0.2, 0.8], [True, True, False]) == 0.0
    # Pairs (right, wrong): .8>.6, .8>.2, .4<.6, .4>.2: three of four.
    assert auroc([0.8, 0.6, 0.4, 0.2], [True, False, True, False]) == 0.75
    # .5=.5 counts half, .5>.1 whole: 1.5 of 2.
    assert auroc([0.5, 0.5, 0.1], [True, False, False]) == 0.75
    assert auroc([0.5] * 6, [True, False] * 3) == 0.5
    assert auroc([0.2, 0.4], [True, True]) is None
    assert auroc([], []) is None


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.booleans()), max_size=30))
def test_auroc_is_the_chance_that_it_says_it_is(pairs):
    hits = [c for c, right in pairs if right]
    misses = [c for c, right in pairs if not right]
    found = auroc([c for c, _ in pairs], [right for _, right in pairs])
    if not hits or not misses:
        assert found is None
        return
    wins = sum(Fraction((h > m) * 2 + (h == m), 2) for h in hits for m in misses)
    assert found == pytest.approx(float(wins / (len(hits) * len(misses))))


def test_precision_counts_by_weight():
    assert precision([1.0, 1.0, 1.0, 1.0], [True, True, True, False]) == 0.75
    assert precision([0.9, 0.1], [True, False]) == pytest.approx(0.9)
    assert precision([0.0], [True]) is None
    assert precision([], []) is None


def test_a_share_of_the_lowest():
    assert lowest([0.4, 0.1, 0.3, 0.2], 0.5) == {1, 3}
    assert lowest([0.4, 0.1, 0.3, 0.2], 0.49) == {1}
    assert lowest([0.5] * 10, 0.3) == {0, 1, 2}
    assert lowest([0.5], 1.0) == {0}
    assert lowest([], 0.5) == set()
