"""The arithmetic of an estimate, against figures worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from core.ledger import Entry
from core.prices import DevicePrice, PriceBook, TokenPrice
from stillhouse.estimate import (
    Amount,
    Answered,
    Estimate,
    against,
    line,
    start_up,
    sum_over,
    survivors,
    together,
)

PRICES = PriceBook(
    currency="USD",
    devices={"h100": DevicePrice(per_hour=3.6, source="test")},
    tokens={"big": TokenPrice(input_per_million=10.0, output_per_million=100.0, source="test")},
)
ENDPOINT = Entry("ask", "a", "", model="big", teacher="far")


def usage(*rows):
    """Kept rows of one request each, by their tokens in and out."""
    return np.array([(1, tokens_in, 0, tokens_out) for tokens_in, tokens_out in rows])


def used(kept, entry=ENDPOINT, **more):
    requests, tokens_in, _, tokens_out = kept.sum(axis=0)
    return replace(entry, requests=requests, tokens_in=tokens_in, tokens_out=tokens_out, **more)


def test_a_sum_is_rows_times_the_mean_with_students_interval():
    # mean 5, s = sqrt(20/3) = 2.581989; t(3) = 3.182446; 100·t·s·sqrt(0.96/4) = 402.5512
    found = sum_over(Amount(100), np.array([2, 4, 6, 8]))
    assert (found.value, found.known) == (500, 20)
    assert found.reach == pytest.approx(402.5512, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((97.4488, 902.5512), abs=1e-4)
    assert found.left == Amount(480, found.reach)


def test_what_is_known_whole_has_no_interval():
    assert sum_over(Amount(4), np.array([2, 4, 6, 8])) == Amount(20, 0.0, 20)
    assert sum_over(Amount(1), np.array([7])) == Amount(7, 0.0, 7)


def test_one_row_of_many_says_nothing_of_the_spread():
    assert sum_over(Amount(10), np.array([7])) == Amount(70, math.inf, 7)


def test_an_interval_does_not_go_below_what_is_measured():
    assert sum_over(Amount(10), np.array([1, 9])).low == 10


def test_a_number_of_rows_that_is_itself_estimated_widens_a_sum():
    values = np.array([2, 4, 6, 8])
    exact = sum_over(Amount(100), values)
    found = sum_over(Amount(100, reach=30), values)
    # The mean is 5: 30 rows more or less are 150 more or less.
    assert found.reach == pytest.approx(math.hypot(exact.reach, 150))


def test_survivors_have_wilsons_interval_of_what_is_not_known():
    # Wilson of 30 of 40: 0.5981 to 0.8581; the longer side, 0.1519, over 400 rows of which a tenth
    # is known: 400 · 0.1519 · sqrt(0.9) = 57.63
    found = survivors(Amount(400), kept=30, of=40)
    assert found.value == 300
    assert found.reach == pytest.approx(57.63, abs=0.05)
    assert survivors(Amount(40), kept=30, of=40).reach == 0
    assert survivors(Amount(400), kept=40, of=40).reach > 0, "all of 40 is not all of 400"


def test_independent_errors_add_in_squares():
    assert together([Amount(1, 3, 1), Amount(2, 4)]) == Amount(3, 5, 1)
    assert together([]) == Amount(0, 0, 0)


def test_an_endpoint_costs_its_tokens():
    kept = usage((10, 1), (20, 3))
    found = line("ask", "far", Amount(100), Answered(kept, 0, used(kept)), PRICES)
    assert found.rows == Amount(100, 0, 2)
    assert (found.tokens_in.value, found.tokens_out.value) == (1500, 200)
    assert found.tokens.value == 1700
    # A row costs 10·10 + 1·100 = 200 or 20·10 + 3·100 = 500 millionths: 100 · 350 of them.
    assert found.money.value == pytest.approx(0.035)
    assert found.money.known == pytest.approx(0.0007)
    # t(1) = 12.7062, s = 300/sqrt(2), sqrt(0.98/2) = 0.7: 100 · 12.7062 · 212.132 · 0.7 millionths
    assert found.money.reach == pytest.approx(0.188677, abs=1e-5)
    assert found.device_seconds is None


def test_a_device_costs_its_seconds_by_rows_and_spreads_by_tokens():
    kept = usage((10, 0), (30, 0))
    device = replace(ENDPOINT, device="h100")
    entry = used(kept, device, useful_seconds=4.0, startup_seconds=50.0, idle_seconds=9.0)
    found = line("ask", "near", Amount(100), Answered(kept, 0, entry), PRICES)
    assert found.device_seconds.value == pytest.approx(200)
    assert found.device_seconds.known == pytest.approx(4)
    # 3.6 an hour is a thousandth a second.
    assert found.money.value == pytest.approx(0.2)
    tokens = found.tokens
    assert found.money.reach / 0.2 == pytest.approx(tokens.reach / tokens.value)


def test_an_unknown_price_makes_money_unknown_and_nothing_else():
    kept = usage((10, 1), (20, 3))
    stranger = Answered(kept, 0, used(kept, model="nobody knows"))
    found = line("ask", "far", Amount(100), stranger, PRICES)
    assert found.money is None
    assert found.tokens.value == 1700
    priced = line("ask", "far", Amount(100), Answered(kept, 0, used(kept)), PRICES)
    assert Estimate([found, priced], [], []).money is None
    assert Estimate([found, priced], [], []).tokens.value == 3400


def test_rejected_rows_are_paid_for_with_what_the_kept_ones_did_not_use():
    kept = usage((10, 2), (10, 2))
    # Two rows were cut at 8 tokens each.
    entry = replace(ENDPOINT, requests=4, tokens_in=40, tokens_out=20)
    found = line("ask", "far", Amount(40), Answered(kept, 2, entry), PRICES)
    assert found.tokens_in.value == pytest.approx(400)
    assert found.tokens_out.value == pytest.approx(200)
    assert found.rows.known == 4


def test_what_is_asked_beside_the_rows_is_counted_once():
    kept = usage((10, 1), (10, 1))
    # Three calibration prompts of 8 tokens, and one of the rows was refused without a token.
    entry = replace(ENDPOINT, requests=5, tokens_in=44, tokens_out=5)
    found = line("score", "far", Amount(20), Answered(kept, 0, entry), PRICES)
    assert found.tokens_in.value == pytest.approx(20 * 10 + 24)
    assert found.tokens_in.known == pytest.approx(44)
    assert found.tokens_in.reach == 0
    # One rejected row takes one of the three requests beyond the kept ones, 8 tokens of the 24.
    found = line("score", "far", Amount(30), Answered(kept, 1, entry), PRICES)
    assert found.tokens_in.value == pytest.approx(30 * 28 / 3 + 16)
    # Refused without a token: what was used is the kept rows' alone.
    refused = line("ask", "far", Amount(30), Answered(kept, 1, used(kept)), PRICES)
    assert refused.tokens_in.value == pytest.approx(30 * 20 / 3)


def test_a_start_is_the_longest_of_all_attempts_and_counts_once():
    entries = [
        Entry("write", "a", "h100", teacher="near", startup_seconds=30),
        Entry("score", "a", "h100", teacher="near", startup_seconds=10),
        Entry("write", "b", "h100", teacher="near", startup_seconds=35),
        Entry("write", "b", "h100", teacher="other", startup_seconds=500),
    ]
    found = start_up("near", entries, PRICES)
    assert found.device_seconds == 40
    assert found.money == pytest.approx(0.04)
    assert start_up("far", entries, PRICES) is None
    whole = Estimate([], [found], [])
    assert whole.device_seconds == Amount(40)
    assert whole.money.value == pytest.approx(0.04)


def test_a_limit_is_enough_exceeded_or_in_doubt():
    left = Amount(10, 2)
    assert against(13.1, 1.0, left) == "enough"
    assert against(13.0, 1.0, left) == "in doubt"
    assert against(9.1, 1.0, left) == "in doubt"
    assert against(9.0, 1.0, left) == "exceeded"


def test_the_interval_of_a_total_holds_19_times_of_20():
    """Against a population of skewed lengths, from samples of 50 of 1,000."""
    generator = np.random.default_rng(0)
    lengths = generator.gamma(2.0, 50.0, size=1000)
    held = 0
    for _ in range(2000):
        found = sum_over(Amount(1000), generator.choice(lengths, 50, replace=False))
        held += found.low <= lengths.sum() <= found.high
    assert 0.92 < held / 2000 < 0.97
