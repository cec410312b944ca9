"""The recipe of 2412.09807 whole, with embedded models on two cores: a real teacher and student."""

from __future__ import annotations

import pytest

from tests.integration.test_frontier_recipes import MOST_SECONDS, run_recipe


@pytest.mark.slow
def test_items_with_choices_of_their_own_from_five_examples_to_a_student(tmp_path):
    report, seconds = run_recipe("fewshot_mcqa", tmp_path)
    ways = {way["name"]: way for way in report["ways"]}
    assert ways["decomposed"]["generated"] > ways["decomposed"]["asked"] / 2
    assert 0 < ways["json"]["generated"] < ways["json"]["asked"], "what is no JSON is counted"
    for way in ways.values():
        assert way["kept"] == way["scored"] <= way["generated"] - way["duplicates"]
    shares = {
        quality["name"]: quality["score"]["correct"] / quality["score"]["total"]
        for quality in report["qualities"]
    }
    assert set(shares) == {
        *("student, examples alone", "Teacher teacher, raw", "Teacher teacher, calibrated"),
        "Student student",
    }
    assert {quality["score"]["total"] for quality in report["qualities"]} == {100}
    # Of four choices: the teacher knows these things. What the student learns is told elsewhere.
    assert shares["Teacher teacher, calibrated"] > 0.5
    assert seconds < MOST_SECONDS
