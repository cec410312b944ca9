"""Conversations of Baize's collection (2304.01196), of which what the user says is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.datasets import Fields
from pipelines.datasets.records import json_records, made, text_of
from pipelines.row_work import Rejection

Rows = Iterator[tuple[int, Fields | Rejection]]

TURN = re.compile(r"\[\|Human\|\](.*?)(?=\[\|AI\|\]|\[\|Human\|\]|\Z)", re.DOTALL)
"""What the user says, up to the reply."""


def read_baize_quora(file: Path) -> Rows:
    """Its Quora chats: a JSON list with the whole conversation under `input`."""
    return made(json_records(file), _turns)


def read_baize_alpaca(file: Path) -> Rows:
    """Its Alpaca chats, of each the first turn: 2410.18588 has them as single-turn dialogs."""
    return made(json_records(file), lambda record: {"turns": _turns(record)["turns"][:1]})


def _turns(record: Any) -> Fields:
    said = [turn.strip() for turn in TURN.findall(text_of(record, "input"))]
    turns = [turn for turn in said if turn]  # a conversation ends with an empty turn
    if not turns:
        raise ValueError("the user says nothing in it")
    return {"turns": turns}
