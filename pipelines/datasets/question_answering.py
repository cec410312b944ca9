"""Multiple-choice questions in AI2's form: ARC, CommonsenseQA, OpenBookQA, QASC and RiddleSense."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.datasets import Fields
from pipelines.datasets.records import json_records, made, text_of
from pipelines.row_work import Rejection

Rows = Iterator[tuple[int, Fields | Rejection]]


def read_arc(file: Path) -> Rows:
    """The AI2 Reasoning Challenge (1803.05457): lines of JSON; some label choices by numbers."""
    return made(json_records(file), _row)


def read_commonsense_qa(file: Path) -> Rows:
    """CommonsenseQA (1811.00937): lines of JSON; its test file has no answers."""
    return made(json_records(file), _row)


def read_openbookqa(file: Path) -> Rows:
    """OpenBookQA (1809.02789): lines of JSON with four choices."""
    return made(json_records(file), _row)


def read_qasc(file: Path) -> Rows:
    """QASC (1910.11473): lines of JSON with eight choices; its test file has no answers."""
    return made(json_records(file), _row)


def read_riddlesense(file: Path) -> Rows:
    """RiddleSense (2101.00376): lines of JSON; its test file has no answers."""
    return made(json_records(file), _row)


def _row(record: Any) -> Fields:
    question = record["question"]
    choices = {choice["label"]: text_of(choice, "text") for choice in question["choices"]}
    if len(choices) < len(question["choices"]):
        raise ValueError("two choices have one label")
    fields = {"question": text_of(question, "stem"), "choices": list(choices.values())}
    key = record.get("answerKey")
    if key:  # test files of which nobody is told the answers have none, or an empty one
        fields["answer"] = choices[key]
    return fields
