"""Problems of arithmetic: AQuA-RAT, GSM8K, MultiArith and SVAMP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.datasets import Fields
from pipelines.datasets.records import json_records, made, text_of
from pipelines.equations import value_of
from pipelines.row_work import Rejection

Rows = Iterator[tuple[int, Fields | Rejection]]

OPTION = re.compile(r"\s*([A-E])\s*\)\s*(.*)", re.DOTALL)
"""A choice of AQuA: `A)5 km`."""


def read_aqua(file: Path) -> Rows:
    """AQuA-RAT (1705.04146): lines of JSON with `question`, `options` and `correct`.

    Its rows are multiple choice, as the paper asks them.
    """
    return made(json_records(file), _aqua)


def _aqua(record: Any) -> Fields:
    options = [OPTION.fullmatch(option) for option in record["options"]]
    if None in options:
        raise ValueError("an option does not begin with its letter")
    choices = {option[1]: option[2].strip() for option in options if option}
    return {
        "question": text_of(record, "question"),
        "choices": list(choices.values()),
        "answer": choices[record["correct"].strip()],
    }


def read_gsm8k(file: Path) -> Rows:
    """GSM8K (2110.14168): lines of JSON; the result stands behind `####` in `answer`."""
    return made(json_records(file), _gsm8k)


def _gsm8k(record: Any) -> Fields:
    reasoning, mark, result = text_of(record, "answer").rpartition("####")
    if not mark or not result.strip():
        raise ValueError("no result stands behind ####")
    return {
        "question": text_of(record, "question"),
        "answer": result.strip().replace(",", ""),
        "solution": reasoning.strip(),
    }


def read_multiarith(file: Path) -> Rows:
    """MultiArith (Roy and Roth, 2015): a JSON list with `sQuestion` and `lSolutions`."""
    return made(json_records(file), _multiarith)


def _multiarith(record: Any) -> Fields:
    return {"question": text_of(record, "sQuestion"), "answer": _number(record["lSolutions"][0])}


def read_svamp(file: Path) -> Rows:
    """SVAMP (2103.07191): a JSON list with `Body`, `Question` and `Answer`.

    The form of 2305.02301, with `input` and an equation under `label`, is read too.
    """
    return made(json_records(file), _svamp)


def _svamp(record: Any) -> Fields:
    if "label" in record:
        question = " ".join(text_of(record, "input").split("\n"))
        return {"question": question, "answer": _number(value_of(text_of(record, "label")))}
    body, asked = text_of(record, "Body"), text_of(record, "Question")
    end = "" if body[-1] in ".!?," else "."
    return {"question": f"{body}{end} {asked}", "answer": _number(record["Answer"])}


def _number(value: Any) -> str:
    """A number as text, whole where it is whole."""
    number = float(value)
    return str(int(number)) if number.is_integer() else f"{number:.10g}"
