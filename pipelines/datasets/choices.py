"""Choices in forms of their own: PIQA, and the six sets of 2402.04616 as its authors give them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import UseError
from pipelines.datasets import Fields
from pipelines.datasets.records import archive_texts, json_records, made, text_of
from pipelines.row_work import Rejection

Rows = Iterator[tuple[int, Fields | Rejection]]


def read_piqa(file: Path) -> Rows:
    """PIQA (1911.11641): the archive of its training and development rows, of which the former.

    Or lines of JSON or Parquet with `goal`, `sol1`, `sol2` and, where it is known, `label`.
    """
    return made(_piqa_records(file, "train"), _piqa)


def read_piqa_dev(file: Path) -> Rows:
    """The development rows of PIQA's archive."""
    return made(_piqa_records(file, "dev"), _piqa)


def _piqa(record: Any) -> Fields:
    choices = [text_of(record, "sol1"), text_of(record, "sol2")]
    fields = {"question": text_of(record, "goal"), "choices": choices}
    if record.get("label") not in (None, -1):  # as the test rows have it
        fields["answer"] = choices[("0", "1").index(str(record["label"]))]
    return fields


def _piqa_records(file: Path, part: str) -> Iterator[tuple[int, Any]]:
    """Rows with their labels, which the archive has in a file of their own.

    Raises:
        UseError: The archive has not both files, or one label for each row.
    """
    if file.suffix != ".zip":
        yield from json_records(file)
        return
    texts = {PurePosixPath(name).name: content for name, content in archive_texts(file)}
    try:
        lines = texts[f"{part}.jsonl"].decode().splitlines()
        labels = texts[f"{part}-labels.lst"].decode().split()
        pairs = list(zip(lines, labels, strict=True))
    except (KeyError, ValueError) as error:
        raise UseError(
            str(file),
            f"it has not {part}.jsonl with a label for each line in {part}-labels.lst: {error}.",
            "Fetch PIQA's own archive of training and development rows.",
        ) from None
    for number, (line, label) in enumerate(pairs, start=1):
        try:
            yield number, {**json.loads(line), "label": label}
        except (TypeError, ValueError):
            yield number, Rejection("not-json", f"row {number} is no JSON object", line)


def read_tinyllm(file: Path) -> Rows:
    """A set of 2402.04616, as github.com/YikunHan42/TinyLLM has it: a JSON list, or lines of JSON.

    With `question`, which begins with the abstracts of a biomedical one, `choices`, `answer`, and
    the `id` under which its teachers' rationales are recorded (recipes/tinyllm/prepare.py).
    """
    return made(json_records(file), _tinyllm)


def _tinyllm(record: Any) -> Fields:
    choices = record["choices"]
    if not isinstance(choices, list) or len(choices) < 2:
        raise ValueError("there is no list of choices")
    return {
        "id": record["id"],
        "question": text_of(record, "question"),
        "choices": [str(choice) for choice in choices],
        "answer": text_of(record, "answer"),
    }
