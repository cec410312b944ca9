"""Natural-language inference: ANLI, ConjNLI, ConTRoL and HELP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.datasets import Fields
from pipelines.datasets.records import json_records, made, table_records, text_of
from pipelines.row_work import Rejection

Rows = Iterator[tuple[int, Fields | Rejection]]

LABELS = {
    **{label: label for label in ("entailment", "neutral", "contradiction")},
    "e": "entailment",
    "n": "neutral",
    "c": "contradiction",
}
"""The labels of all sets in one form."""


def read_anli(file: Path) -> Rows:
    """ANLI (1910.14599): lines of JSON with `context`, `hypothesis` and `label`: e, n or c."""
    return made(json_records(file), lambda r: _row(r, "context", "hypothesis", "label"))


def read_conjnli(file: Path) -> Rows:
    """ConjNLI (2010.10418): a table with `Premise`, `Hypothesis` and `Label`."""
    return made(table_records(file), lambda r: _row(r, "Premise", "Hypothesis", "Label"))


def read_control(file: Path) -> Rows:
    """ConTRoL (2011.04864): lines of JSON with `premise`, `hypothesis` and `label`: e, n or c."""
    return made(json_records(file), lambda r: _row(r, "premise", "hypothesis", "label"))


def read_help(file: Path) -> Rows:
    """HELP (1904.12166): a table with `ori_sentence`, `new_sentence` and `gold_label`."""
    return made(
        table_records(file), lambda r: _row(r, "ori_sentence", "new_sentence", "gold_label")
    )


def _row(record: Any, premise: str, hypothesis: str, label: str) -> Fields:
    said = text_of(record, label).lower()
    if said not in LABELS:
        raise ValueError(f"'{said}' is no label")
    return {
        "premise": text_of(record, premise),
        "hypothesis": text_of(record, hypothesis),
        "label": LABELS[said],
    }
