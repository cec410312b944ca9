"""Blind ratings by people: out to a sheet, back, and into the report."""

from __future__ import annotations

import csv
import io
import json

import pytest

from stillhouse.rating_sheet import agreement
from tests.commands import command
from tests.unit.test_judges import TALKS, answered, talk

__all__ = ["answered", "talk"]


def ratings(folder, *arguments):
    return command(folder, "ratings", *arguments)


def lines_of(file):
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))


def filled(lines, rating, delimiter=","):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows({**line, "rating": rating(line)} for line in lines)
    return stream.getvalue()


@pytest.fixture
def sheet(answered):
    done = ratings(answered, "export", "run", "sheet.csv", "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert "18 replies to rate" in done.stdout
    return answered / "sheet.csv"


def test_a_sheet_says_nothing_of_the_models(sheet):
    text, lines = sheet.read_text(encoding="utf-8-sig"), lines_of(sheet)
    assert not any(name in text for name in ("small", "big", "undistilled"))
    assert len(lines) == 3 * sum(map(len, TALKS)) == 18
    assert len({line["number"] for line in lines}) == 18
    later = [line for line in lines if line["said before"]]
    assert len(later) == 9
    assert all(line["said before"].startswith("> ") for line in later)
    # The models of a row stand in another order from row to row.
    key = json.loads((sheet.parent / "run" / "ratings" / "key.json").read_text())["lines"]
    orders = {}
    for line in lines:
        what = key[line["number"]]
        orders.setdefault(what["item"], []).append(what["model"])
    assert len({tuple(dict.fromkeys(order)) for order in orders.values()}) > 1


def test_ratings_come_back_and_stand_in_the_report_with_the_agreement(sheet):
    folder, lines = sheet.parent, lines_of(sheet)
    key = json.loads((folder / "run" / "ratings" / "key.json").read_text())["lines"]

    def kind(line):
        return 2 if key[line["number"]]["model"] == "small, undistilled" else 4

    sheet.write_text(filled(lines, kind), encoding="utf-8-sig")
    done = ratings(folder, "import", "run", "sheet.csv", "--rater", "1")
    assert done.returncode == 0, done.stderr
    assert "18 ratings by 1, 0 lines left blank." in done.stdout
    # Another spreadsheet writes semicolons and decimal commas; one line is left blank.
    blank = lines[0]["number"]
    sheet.write_text(
        filled(lines, lambda line: "" if line["number"] == blank else f"{kind(line) - 1},5", ";")
    )
    done = ratings(folder, "import", "run", "sheet.csv", "--rater", "2")
    assert "17 ratings by 2, 1 lines left blank." in done.stdout
    assert "Agreement of 2 raters" in done.stdout
    assert command(folder, "report", "run").returncode == 0
    people = json.loads((folder / "run" / "report.json").read_text())["people"]
    (table,) = people["tables"]
    assert table["arms"] == ["big", "small, undistilled", "small"]
    assert table["raters"]["1"] == {"big": 4.0, "small, undistilled": 2.0, "small": 4.0}
    assert table["means"] == {"big": 3.75, "small, undistilled": 1.75, "small": 3.75}
    assert people["alpha"] == pytest.approx(0.9, abs=0.1)
    assert "Krippendorff" in (folder / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text, lines: text.replace(lines[3]["number"], "0123456789"),
            "is no number of this",
        ),
        (lambda text, lines: text + text.split("\n", 1)[1], "stands there twice"),
        (lambda text, lines: text.replace(",3,", ",7,", 1), "Write a number from 1 to 5"),
        (lambda text, lines: text.replace(",3,", ",good,", 1), "the rating is 'good'"),
        (lambda text, lines: text.replace("number", "id", 1), "no columns 'number' and 'rating'"),
        (lambda text, lines: text.replace(",3,", ",,"), "there is no rating in it"),
    ],
)
def test_what_is_no_filled_in_sheet(sheet, change, said):
    lines = lines_of(sheet)
    sheet.write_text(change(filled(lines, lambda line: "3"), lines))
    done = ratings(sheet.parent, "import", "run", "sheet.csv", "--rater", "1")
    assert done.returncode == 2
    assert said in done.stderr
    assert not (sheet.parent / "run" / "ratings" / "raters").exists()


def test_a_run_without_answers_of_two_models_has_no_sheet(talk):
    done = command(talk, "run", "recipe.yaml", "--run", "run", "--until", "predict-teachers")
    assert done.returncode == 0
    done = ratings(talk, "export", "run", "sheet.csv")
    assert done.returncode == 2
    assert "no evaluation row is answered in writing by two models" in done.stderr
    done = ratings(talk, "import", "run", "sheet.csv", "--rater", "1")
    assert "no sheet was written from this run" in done.stderr
    assert ratings(talk, "import", "run", "x.csv", "--rater", "../x").returncode == 2


def test_no_reply_is_a_formula():
    from stillhouse.rating_sheet import _plain

    assert _plain("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert [_plain(text) for text in ("@x", "-1", "a=b", "")] == ["'@x", "'-1", "a=b", ""]


def test_agreement_is_krippendorffs_alpha():
    """The interval data of Krippendorff (2011), four raters on twelve units."""
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    raters = [{str(n): float(v) for n, v in enumerate(row) if v is not None} for row in rows]
    assert agreement(raters) == pytest.approx(0.849, abs=0.001)
    assert agreement(raters[:1]) is None
    assert agreement([{"a": 3.0, "b": 3.0}, {"a": 3.0, "b": 3.0}]) is None
    assert agreement([{"a": 1.0}, {"b": 2.0}]) is None
