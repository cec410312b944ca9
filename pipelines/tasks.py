"""Reading the rows that people wrote: the examples and the evaluation set."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import UseError
from core.identity import content_id
from core.recipe import Task
from core.rows import TASK
from core.run import count_by_reason
from core.stage import StageContext, StageResult
from pipelines.row_work import Rejection, rejected_table

LONGEST_QUESTION = 100_000
"""Characters of an input at most; no teacher's prompt holds more."""


def read_rows(context: StageContext) -> StageResult:
    """Read the JSONL file that the stage's setting `file` names, as task rows.

    A line that is no usable row is rejected with its number and the reason; the rest goes on.

    Raises:
        UseError: Not one row can be used.
    """
    file = context.recipe.path(context.settings["file"])
    rows, rejections = parse_rows(file, context.recipe.student_recipe.task)
    if not rows:
        first = f" The first: {rejections[0][1].detail}" if rejections else ""
        raise UseError(
            str(file),
            f"there is no usable row in it.{first}",
            'Each line must be like {"question": "...", "answer": "..."}.',
        )
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
    }


def storable(text: str) -> str:
    """Text as Arrow takes it: JSON can hold half a surrogate pair, and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode()
