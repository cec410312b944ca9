"""Reading the rows that people wrote: the examples and the evaluation sets."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import UseError
from core.identity import content_id
from core.recipe import Task
from core.rows import TASK
from core.run import count_by_reason
from core.stage import StageContext, StageResult
from pipelines.choice_sets import choice_fault
from pipelines.datasets import DatasetFormat, dataset_rows
from pipelines.permutations import LETTERS
from pipelines.row_work import Rejection, rejected_table

LONGEST_QUESTION = 100_000
"""Characters of an input at most; no teacher's prompt holds more."""


def read_rows(context: StageContext) -> StageResult:
    """Read the file that the stage's setting `file` names, as task rows.

    A line that is no usable row is rejected with its number and the reason; the rest goes on.

    Settings: `file`; `format`, of a published data set, or None; `shots`, rows of each subject at
    most, the first ones, or None; `limit`, rows at most, those with the smallest ids, or None.

    Raises:
        UseError: Not one row can be used.
    """
    settings = context.settings
    file = context.recipe.path(settings["file"])
    task = context.recipe.student_recipe.task
    rows, rejections = (
        parse_rows(file, task)
        if settings["format"] is None
        else published_rows(settings["format"], file)
    )
    if not rows:
        first = f" The first: {rejections[0][1].detail}" if rejections else ""
        own = "" if task.choices else ', "choices": ["...", "..."]'
        raise UseError(
            str(file),
            f"there is no usable row in it.{first}",
            f'Each line must be like {{"question": "..."{own}, "answer": "..."}}.',
        )
    if settings["shots"] is not None:
        rows = first_of_each_subject(rows, settings["shots"])
    if settings["limit"] is not None:
        drawn = {row["id"] for row in sorted(rows, key=lambda row: row["id"])[: settings["limit"]]}
        rows = [row for row in rows if row["id"] in drawn]
    rejected = rejected_table(context.stage.stage, rejections)
    context.stage.commit_shard("rows", pa.Table.from_pylist(rows, schema=TASK), rejected)
    return StageResult(["rows"], len(rows), count_by_reason(rejected))


def parse_rows(file: Path, task: Task) -> tuple[list[dict[str, Any]], list[tuple[str, Rejection]]]:
    """Split a JSONL file into task rows and rejections, both with ids."""
    rows: dict[str, dict[str, Any]] = {}
    rejections: list[tuple[str, Rejection]] = []
    for number, line in json_lines(file):
        row_id = content_id(number, line.decode("utf-8", "backslashreplace"))
        row = _parse(line, number, task)
        if isinstance(row, Rejection):
            rejections.append((row_id, row))
        elif row["id"] in rows:
            detail = f"line {number} says the same as an earlier line"
            rejections.append((row_id, Rejection("duplicate", detail, row["question"])))
        else:
            rows[row["id"]] = row
    return list(rows.values()), rejections


def published_rows(
    name: DatasetFormat, file: Path
) -> tuple[list[dict[str, Any]], list[tuple[str, Rejection]]]:
    """The rows of a published data set as task rows, and what is none of it as rejections.

    Equal rows stay, each with an id of its own: who published the set counts them all.
    """
    rows: list[dict[str, Any]] = []
    rejections: list[tuple[str, Rejection]] = []
    seen: Counter[str] = Counter()
    for number, fields in dataset_rows(name, file):
        row = (
            fields if isinstance(fields, Rejection) else _with_own_choices(fields, f"row {number}")
        )
        if isinstance(row, Rejection):
            rejections.append((content_id(number, row.detail, len(rejections)), row))
            continue
        copy = seen[row["id"]]
        seen[row["id"]] += 1
        rows.append({**row, "id": content_id(row["id"], copy)} if copy else row)
    return rows, rejections


def first_of_each_subject(rows: Iterable[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The first rows of each subject; of rows without one they are one subject."""
    taken: Counter[str | None] = Counter()
    kept = []
    for row in rows:
        taken[row["subject"]] += 1
        if taken[row["subject"]] <= most:
            kept.append(row)
    return kept


def json_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:  # spreadsheets and Windows put a mark there
                line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901
            if line.strip():
                yield number, line.rstrip(b"\r\n")


def _parse(line: bytes, number: int, task: Task) -> dict[str, Any] | Rejection:
    try:
        content = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Rejection("not-utf8", f"line {number} is not UTF-8 text", repr(line))
    except (ValueError, RecursionError):  # ValueError also of a number with thousands of digits
        return Rejection("not-json", f"line {number} is not JSON that can be read", line.decode())
    if not isinstance(content, dict):
        return Rejection("not-an-object", f"line {number} is not a JSON object", content)
    return _check(content, number, task)


def _check(content: dict[str, Any], number: int, task: Task) -> dict[str, Any] | Rejection:
    question, answer = content.get("question"), content.get("answer")
    if not isinstance(question, str) or not question.strip():
        return Rejection("no-question", f"line {number} has no text under 'question'", content)
    if len(question) > LONGEST_QUESTION:
        detail = f"line {number} has a question of {len(question)} characters"
        return Rejection("too-long", detail, content)
    if task.choices is None:
        return _with_own_choices(content, f"line {number}")
    if answer not in task.choices:
        detail = f"line {number} answers {answer!r}, which is not one of the choices"
        return Rejection("unknown-answer", detail, content)
    question = storable(question).strip()
    difficulty = content.get("difficulty")
    return {
        "id": content_id(question, task.choices),
        "question": question,
        "choices": task.choices,
        "answer": task.choices.index(answer),
        "difficulty": storable(difficulty).strip() if isinstance(difficulty, str) else None,
        "subject": None,
    }


def _with_own_choices(content: dict[str, Any], place: str) -> dict[str, Any] | Rejection:
    """A row whose choices are its own.

    Args:
        content: With a text under `question`.
        place: Where it stands in the file.
    """
    listed, answer = content.get("choices"), content.get("answer")
    if not isinstance(listed, list) or not all(isinstance(choice, str) for choice in listed):
        return Rejection("no-choices", f"{place} has no list of texts under 'choices'", content)
    choices = [storable(choice).strip() for choice in listed]
    if len(choices) > len(LETTERS):
        detail = f"{place} has {len(choices)} choices, and there are {len(LETTERS)} letters"
        return Rejection("too-many-choices", detail, content)
    if not isinstance(answer, str) or storable(answer).strip() not in choices:
        detail = f"{place} answers {answer!r}, which is not one of its choices"
        return Rejection("unknown-answer", detail, content)
    right = choices.index(storable(answer).strip())
    fault = choice_fault(choices, right)
    # Published examinations have choices twice; they are rows all the same.
    if fault is not None and (fault[0] != "duplicate-choices" or len(set(choices)) == 1):
        return Rejection(fault[0], f"{place}: {fault[1]}", content)
    question, subject = storable(content["question"]).strip(), content.get("subject")
    difficulty = content.get("difficulty")
    subject = storable(subject).strip() if isinstance(subject, str) else None
    return {
        "id": content_id(question, choices, subject),
        "question": question,
        "choices": choices,
        "answer": right,
        "difficulty": storable(difficulty).strip() if isinstance(difficulty, str) else None,
        "subject": subject,
    }


def storable(text: str) -> str:
    """Text as Arrow takes it: JSON can hold half a surrogate pair, and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode()
