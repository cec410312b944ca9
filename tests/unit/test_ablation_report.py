"""An ablation on the pages of both kinds of methods."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from stillhouse.ablation_table import variant_table
from stillhouse.report import data as d
from stillhouse.report.ablation_figures import differences
from stillhouse.report.page import render
from stillhouse.report.teacher_data_page import render_teacher_data
from tests.unit.test_report import realistic
from tests.unit.test_teacher_data_report import with_students

ABLATIONS = d.Ablations(
    student="minilm",
    judged_by="answer",
    seeds=[0, 1],
    rows=650,
    variants=[
        d.Variant("as it is", {}, [0.91, 0.92], 0.915, 0.007, None),
        d.Variant(
            "<b>hard</b> labels",
            {"students.minilm.train.objective.temperature": 0},
            [0.89, 0.895],
            0.8925,
            0.0035,
            d.Gap(-0.0225, -0.034, -0.007, 0.0106),
        ),
        d.Variant("raw scores", {"score.scores": "raw"}, [None, None], None, None, None),
    ],
    claims=[
        d.JudgedClaim(
            "soft labels beat hard ones (2412.09807)",
            "as it is",
            "<b>hard</b> labels",
            2.0,
            d.Gap(0.0225, 0.007, 0.034, 0.0106),
            "seen",
        ),
        d.JudgedClaim("calibration pays", "as it is", "raw scores", 0.0, None, None),
        d.JudgedClaim(
            "a third keeps it",
            "as it is",
            "raw scores",
            0.0,
            d.Gap(0.01, -0.01, 0.03, 0.01),
            "cannot tell at this size",
            0.9,
            "<b>hard</b> labels",
            d.Gap(0.05, 0.01, 0.09, 0.01),
        ),
    ],
    notes=["The recipe has changed since."],
    device_seconds=1234.5,
    money=None,
)


def section(page: str) -> str:
    return re.search(r'<section id="ablations">.*?</section>', page, re.DOTALL)[0]


@pytest.mark.parametrize(
    "page",
    [
        lambda ablations: render(replace(realistic(), ablations=ablations)),
        lambda ablations: render_teacher_data(replace(with_students(), ablations=ablations)),
    ],
    ids=["student", "teacher data"],
)
def test_every_variant_and_claim_is_on_the_page(page):
    whole = page(ABLATIONS)
    assert '<a href="#ablations">Ablations</a>' in whole
    found = section(whole)
    assert "4 of 6 cells are done" in found
    assert "<b>hard" not in found, "names are escaped"
    assert "students.minilm.train.objective.temperature=0" in found
    assert "\N{MINUS SIGN}3.4 to \N{MINUS SIGN}0.7" in found
    assert "soft labels beat hard ones" in found
    assert ">seen<" in found
    assert "by 2.0 points" in found
    assert ">cells are left<" in found
    assert "beyond 90.0% of the gain of" in found
    assert "of which 110.0% is kept" in found
    assert ABLATIONS.notes[0] in found
    assert "#ablations" not in page(None)


def test_the_plot_has_the_variants_that_have_a_difference():
    drawing = differences(ABLATIONS)
    assert "hard" in drawing.alt
    assert "raw scores" not in drawing.alt
    assert "\N{MINUS SIGN}2.2 points (95% interval" in drawing.alt
    assert differences(replace(ABLATIONS, variants=ABLATIONS.variants[:1])) is None


def test_the_measure_that_decides_nothing_stands_beside_the_one_that_does():
    whole, hard, raw = ABLATIONS.variants
    variants = [replace(whole, other=0.334), replace(hard, other=0.221), raw]
    both = replace(ABLATIONS, judged_by="choice", variants=variants)
    found = section(render_teacher_data(replace(with_students(), ablations=both)))
    assert ">As written<" in found
    assert ">33.4%<" in found
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(variant_table(both), variant_table(ABLATIONS))
    head, row, *others = console.export_text().splitlines()
    assert "as written" in head
    assert "33.4%" in row
    assert not any("as written" in line or "by choice" in line for line in others)
    assert ">As written<" not in section(render(replace(realistic(), ablations=ABLATIONS)))
