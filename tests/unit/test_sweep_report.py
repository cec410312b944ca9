"""A sweep on the page: every trial is there, and what cannot be drawn does not break it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from stillhouse.report import data as d
from stillhouse.report.page import render
from stillhouse.report.sweep_figures import by_key
from tests.unit.test_report import realistic

TRIALS = [
    d.SweepTrial(1, [1e-5, "words", True], "finished", 4, 0.91, 30.0, 0.0004),
    d.SweepTrial(2, [1e-3, "letters", False], "stopped", 1, 0.5, 9.0, 0.0001),
    d.SweepTrial(3, [1e-4, "words", True], "failed", 0, None, 3.0, None),
    d.SweepTrial(4, [5e-4, "<b>", False], "finished", 4, 0.935, 31.0, 0.0004),
]
SWEEP = d.Sweep(
    student="minilm",
    metric="validation_accuracy",
    rising=True,
    keys=["students.minilm.train.learning_rate", "score.labels", "select.agree"],
    logarithmic=["students.minilm.train.learning_rate"],
    notes=["The trials were judged on different held-out rows."],
    trials=TRIALS,
    best=4,
)


def section(page: str) -> str:
    return re.search(r'<section id="sweep">.*?</section>', page, re.DOTALL)[0]


def test_every_trial_is_in_the_table_and_the_best_is_named():
    page = render(replace(realistic(), sweep=SWEEP))
    found = section(page)
    assert '<a href="#sweep">Sweep</a>' in page
    assert "values of trial 4" in found
    assert SWEEP.notes[0] in found
    rows = re.findall(r'<tr><th scope="row">(\d)(.*?)</tr>', found)
    assert [number for number, _ in rows] == ["1", "2", "3", "4"]
    for number, row in rows:
        assert ("best" in row) == (number == "4")
    assert "93.5%" in rows[3][1]
    assert "stopped early" in rows[1][1]
    assert "unknown" in rows[2][1], "what failed has no price, and is not free"
    assert "<b>" not in found, "values are escaped"


def test_each_key_has_a_plot_of_the_trials_that_have_a_score():
    rate, labels, agree = by_key(SWEEP)
    assert "by learning_rate. Trial 1, 1e-05: 91.0%, finished. Trial 2" in rate.alt
    assert "Trial 3" not in rate.alt
    assert "letters" in labels.wide
    assert "true" in agree.narrow


@pytest.mark.parametrize("trials", [TRIALS[:1], TRIALS[2:3]], ids=["one trial", "no score"])
def test_a_sweep_that_has_hardly_begun_is_shown(trials):
    sweep = replace(SWEEP, trials=trials, best=None)
    assert len(by_key(sweep)) == (3 if trials[0].score else 0)
    assert "values of trial" not in section(render(replace(realistic(), sweep=sweep)))


def test_a_run_without_a_sweep_says_nothing_of_one():
    page = render(realistic())
    assert "#sweep" not in page
    assert 'id="sweep"' not in page
