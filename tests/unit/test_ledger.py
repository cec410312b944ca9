"""Money by hand: device-seconds, totals, break-even, and what stays unknown."""

import math

import pytest

from core.errors import UseError
from core.ledger import Entry, Ledger, break_even, money, total
from core.prices import BUILT_IN, PriceBook, load_prices
from core.run import Folder

PRICES = PriceBook.model_validate(
    {"currency": "EUR", "devices": {"h100": {"per_hour": 3.6, "source": "by hand"}}}
)


def entry(**values) -> Entry:
    return Entry(**{"stage": "write", "attempt": "a", "device": "h100", **values})


def test_all_the_time_that_a_device_is_held_is_paid():
    # 100 + 400 + 500 seconds at 3.60 an hour, 0.001 a second.
    held = entry(startup_seconds=100.0, useful_seconds=400.0, idle_seconds=500.0)
    assert money(held, PRICES) == pytest.approx(1.0)


def test_an_unknown_price_makes_a_sum_unknown():
    known = entry(useful_seconds=3600.0, rows=3, tokens_out=10)
    unknown = entry(device="tpu", useful_seconds=1.0, rows=4)
    both = total([known, unknown], PRICES)
    assert both.money is None
    assert both.entry.rows == 7
    assert both.entry.tokens_out == 10
    assert total([known], PRICES).money == pytest.approx(3.6)
    assert total([], PRICES).money == 0


def test_an_attempt_rewrites_its_entry_and_leaves_others(tmp_path):
    ledger = Ledger(Folder(str(tmp_path)))
    ledger.write(entry(rows=1))
    ledger.write(entry(rows=2))
    ledger.write(entry(attempt="b", rows=5))
    assert sorted(e.rows for e in ledger.entries()) == [2, 5]


def test_break_even_by_hand():
    # Making cost 12; a thousand requests cost 5 on the teacher, 1 on the student: 4 saved.
    found = break_even(12.0, 5.0, 1.0, requests_per_day=1000)
    assert found.requests == pytest.approx(3000)
    assert found.days == pytest.approx(3)


def test_the_papers_break_even():
    # arXiv 2410.18588, table 2: labelling N rows with chain of density at 8.742 a thousand is
    # repaid after 1.37 N requests on the 8B student, which saves 6.387 a thousand.
    found = break_even(8.742, 6.387 + 0.36, 0.36, requests_per_day=1)
    assert found.requests == pytest.approx(1.37 * 1000, rel=2e-3)


@pytest.mark.parametrize("student", [5.0, 6.0])
def test_no_saving_never_breaks_even(student):
    assert break_even(1.0, 5.0, student, 100).requests == math.inf


@pytest.mark.parametrize("figures", [(None, 5.0, 1.0), (1.0, None, 1.0), (1.0, 5.0, None)])
def test_unknown_stays_unknown(figures):
    found = break_even(*figures, requests_per_day=100)
    assert found.requests is None
    assert found.days is None


def test_the_price_book_that_comes_with_stillhouse_is_sound():
    book = load_prices(BUILT_IN)
    assert book.device_money("cpu-core", 3600) == book.devices["cpu-core"].per_hour
    assert book.device_money("abacus", 3600) is None


@pytest.mark.parametrize("text", ["currency: usd\n", "currency: USD\ndevices: {x: {}}\n", "[", ""])
def test_a_wrong_price_book_is_refused(tmp_path, text):
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(UseError) as caught:
        load_prices(file)
    assert str(file) in caught.value.place
