"""The table of costs of 2410.18588, from its own prices and counts of tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.ledger import break_even
from core.prices import load_prices

BOOK = load_prices(Path(__file__).parents[2] / "recipes" / "prices_2410.18588.yaml")

DOCUMENT, PLAIN, CHAIN, SUMMARY, STEPS = 1000, 25, 400, 80, 4
"""Tokens of a document, of the two prompts and of a summary, and the summaries of a chain. The
paper does not say 80: it is the round number that gives all four of its figures to the cent."""

PUBLISHED = {
    "405B vanilla": ("meta-llama/Llama-3.1-405B-Instruct", PLAIN, 6.74),
    "405B chain of density": ("meta-llama/Llama-3.1-405B-Instruct", CHAIN, 8.74),
    "70B distilled": ("meta-llama/Llama-3.1-70B-Instruct", PLAIN, 3.03),
    "8B distilled": ("meta-llama/Llama-3.1-8B-Instruct", PLAIN, 0.36),
}


def cost(column, written=SUMMARY):
    model, prompt, _ = PUBLISHED[column]
    return BOOK.thousand_samples(model, DOCUMENT + prompt, written)


@pytest.mark.parametrize("column", PUBLISHED)
def test_the_papers_table_to_the_cent(column):
    assert f"{cost(column):.2f}" == f"{PUBLISHED[column][2]:.2f}"


def test_a_chain_of_density_is_billed_there_for_one_summary_and_writes_four():
    assert cost("405B chain of density") == pytest.approx(8.742)
    assert cost("405B chain of density", STEPS * SUMMARY) == pytest.approx(12.582)


def test_the_savings_that_the_paper_tells():
    teacher = cost("405B vanilla")
    assert teacher / cost("70B distilled") == pytest.approx(2.225, abs=0.001)
    assert teacher / cost("8B distilled") == pytest.approx(18.93, abs=0.01)


def test_labels_are_paid_back_by_so_many_requests_each():
    """With chain-of-density labels of N rows at the paper's own price, training left out."""
    teacher, label = cost("405B vanilla"), cost("405B chain of density") / 1000
    for column, requests in (("8B distilled", 1.37), ("70B distilled", 2.35)):
        found = break_even(label, teacher, cost(column), requests_per_day=1)
        assert found.requests == pytest.approx(requests, abs=0.005)


def test_a_model_without_a_price_costs_something_unknown():
    assert BOOK.thousand_samples("somebody/else", 1, 1) is None
