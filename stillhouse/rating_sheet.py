"""A blind sheet on which people rate answers, and what they wrote on it.

A line of the sheet is one reply, under a number that says nothing of the model; which is which
stands in the run (`ratings/key.json`), and so do the ratings, a file for each rater. Raters see
what was asked and what was said before, the models of one row in an order drawn for each of them.
"""

from __future__ import annotations

import csv
import io
import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from core.errors import UseError
from core.identity import content_id
from core.run import Folder, Run
from stillhouse.distilling import DistillingRecipe
from stillhouse.gather_side_by_side import answers_by_row
from stillhouse.run_reader import RunReader

COLUMNS = ("number", "said before", "asked", "reply", "rating", "remark")

LEAST, MOST = 1.0, 5.0
"""The scale of the paper: 1 is not helpful, 5 is very helpful."""

KEY, RATERS, AGREEMENT = "key.json", "raters", "agreement.json"
"""In the run's folder `ratings`."""

FORMULA = "=+-@\t\r"
"""What a spreadsheet takes for the begin of a formula, which must not be run."""

NUMBER_LENGTH = 10


@dataclass(frozen=True)
class Imported:
    """What became of a sheet."""

    ratings: int
    blank: int
    alpha: float | None
    """Krippendorff's, over all raters so far; None of one rater, or where nothing differs."""
    raters: list[str]


def ratings_folder(run: Run) -> Folder:
    """Where a run keeps its sheet's key and the ratings."""
    return run.folder.child("ratings")


def export_sheet(run: Run, file: Path, rows: int, seed: int) -> int:
    """Write a blind sheet, and return how many replies are on it.

    Args:
        run: In which several models have answered the evaluation rows.
        file: The CSV file to write.
        rows: Evaluation rows at most, of each data set; drawn by the seed.
        seed: Of the draw, and of the order of the replies.

    Raises:
        UseError: There is nothing to rate, or the file cannot be written.
    """
    folder = ratings_folder(run)
    key = folder.read_json(KEY) if folder.has(KEY) else {"salt": secrets.token_hex(16), "lines": {}}
    lines = list(_lines(RunReader(run), rows, Random(seed), key))  # noqa: S311, a draw of rows
    if not lines:
        raise UseError(
            run.folder.location,
            "no evaluation row is answered in writing by two models or more.",
            "Set arms in the recipe, such as arms.undistilled, and finish the run.",
        )
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    writer.writerows(lines)
    # First the key: a sheet without it is of no use.
    folder.write_json(KEY, key)
    try:
        # With the mark by which spreadsheets know UTF-8.
        file.write_text(stream.getvalue(), encoding="utf-8-sig", newline="")
    except OSError as error:
        raise UseError(str(file), f"it cannot be written: {error}.", "Name another.") from None
    return len(lines)


def _lines(
    reader: RunReader, rows: int, random: Random, key: dict[str, Any]
) -> Iterator[dict[str, str]]:
    recipe = reader.loaded.recipe
    if not isinstance(recipe, DistillingRecipe):
        return
    for part in recipe.parts():
        by_row = answers_by_row(reader, part)
        chosen = random.sample(sorted(by_row), min(rows, len(by_row)))
        for row_id in chosen:
            answers = by_row[row_id]
            random.shuffle(answers)
            for answer in answers:
                turns = answer["turns"] or [answer["question"]]
                replies = answer["replies"] or [answer["text"]]
                for turn, (asked, reply) in enumerate(zip(turns, replies, strict=True)):
                    what = {
                        "dataset": part.name or recipe.name,
                        "item": row_id,
                        "model": answer["model"],
                        "turn": turn,
                    }
                    # The reply is part of it: what is answered anew is rated anew.
                    number = content_id(key["salt"], what, reply)[:NUMBER_LENGTH]
                    key["lines"][number] = what
                    before = [f"> {u}\n{r}" for u, r in zip(turns[:turn], replies, strict=False)]
                    yield {
                        "number": number,
                        "said before": _plain("\n".join(before)),
                        "asked": _plain(asked),
                        "reply": _plain(reply),
                        "rating": "",
                        "remark": "",
                    }


def _plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in tuple(FORMULA) else text


def import_sheet(run: Run, file: Path, rater: str) -> Imported:
    """Take in a sheet that somebody has filled in; one of the same rater replaces the earlier.

    Args:
        run: That the sheet was written from.
        file: The CSV file, with commas, semicolons or tabs.
        rater: Who it was: a name, or better a number.

    Raises:
        UseError: It is no such sheet; the message names the line.
    """
    folder = ratings_folder(run)
    if not folder.has(KEY):
        raise UseError(
            run.folder.location,
            "no sheet was written from this run.",
            "`stillhouse ratings export` writes one.",
        )
    known, found, blank = folder.read_json(KEY)["lines"], {}, 0
    for line, row in _read(file):
        number, said = (row.get("number") or "").strip(), (row.get("rating") or "").strip()
        place = f"{file}, line {line}"
        if number not in known:
            raise UseError(place, f"'{number}' is no number of this run's sheet.", "Correct it.")
        if number in found:
            raise UseError(place, f"'{number}' stands there twice.", "Keep one of the lines.")
        if not said:
            blank += 1
            continue
        found[number] = _rating(said, place)
    if not found:
        raise UseError(str(file), "there is no rating in it.", "Fill in the column 'rating'.")
    folder.child(RATERS).write_json(f"{rater}.json", found)
    raters = read_ratings(run)
    alpha = agreement(list(raters.values()))
    folder.write_json(AGREEMENT, {"alpha": alpha, "raters": sorted(raters)})
    return Imported(len(found), blank, alpha, sorted(raters))


def read_ratings(run: Run) -> dict[str, dict[str, float]]:
    """By rater: the ratings, by the numbers of the sheet's lines."""
    folder = ratings_folder(run).child(RATERS)
    return {name.removesuffix(".json"): folder.read_json(name) for name in folder.names()}


def agreement(ratings: Sequence[dict[str, float]]) -> float | None:
    """Krippendorff's alpha of ratings with equal steps; None where there is nothing to compare.

    Args:
        ratings: Of each rater, by line; none needs to have rated all.

    Raises:
        UseError: NLTK is not installed.
    """
    try:
        from nltk.metrics import interval_distance
        from nltk.metrics.agreement import AnnotationTask
    except ImportError:
        raise UseError(
            "the agreement between raters",
            "it needs nltk, which is not installed.",
            "Install stillhouse[evaluation].",
        ) from None
    shared = [
        line
        for line in dict.fromkeys(line for one in ratings for line in one)
        if sum(line in one for one in ratings) > 1
    ]
    data = [
        (str(number), line, one[line])
        for number, one in enumerate(ratings)
        for line in shared
        if line in one
    ]
    if len({value for _, _, value in data}) < 2:
        return None
    return float(AnnotationTask(data, distance=interval_distance).alpha())


def _rating(said: str, place: str) -> float:
    try:
        value = float(said.replace(",", "."))
    except ValueError:
        value = math.nan
    if not LEAST <= value <= MOST:
        raise UseError(
            place, f"the rating is '{said}'.", f"Write a number from {LEAST:g} to {MOST:g}."
        )
    return value


def _read(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a sheet with the lines that they end on."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UseError(str(file), f"it cannot be read: {error}.", "Save it as UTF-8.") from None
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    if not {"number", "rating"} <= set(reader.fieldnames or []):
        raise UseError(str(file), "it has no columns 'number' and 'rating'.", "Keep its head.")
    for row in reader:
        yield reader.line_num, row
