"""Answers that are reached in steps, such as the summaries of a chain of density (2309.04269).

Models write them as a JSON list of objects, with or without words and fences around it, and some
are cut off. A step counts where its object is whole.
"""

from __future__ import annotations

import json
from typing import Any

BEGINS = 50
"""Places of a text that are tried as the begin of a list; a text of brackets has as many."""


def read_steps(text: str, key: str) -> list[str]:
    """What stands under a key in each step of a text, in order; nothing where there are no steps.

    Args:
        text: What a model wrote.
        key: Upper and lower case, underscores and blanks in it do not count.
    """
    wanted = _folded(key)
    at = -1
    for _ in range(BEGINS):
        at = text.find("[", at + 1)
        if at < 0:
            return []
        found = [value for step in _objects(text, at + 1) if (value := _under(step, wanted))]
        if found:
            return found
    return []


def _objects(text: str, at: int) -> list[dict[str, Any]]:
    """The whole objects of a list from a place on, up to its end or to where it is cut."""
    decoder = json.JSONDecoder(strict=False)  # a summary may hold the end of a line
    found: list[dict[str, Any]] = []
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            step, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return found
        if not isinstance(step, dict):
            return found
        found.append(step)


def _under(step: dict[str, Any], wanted: str) -> str:
    """The text under a key; empty where there is none."""
    for key, value in step.items():
        if _folded(key) == wanted and isinstance(value, str):
            return value.strip()
    return ""


def _folded(key: str) -> str:
    return key.casefold().replace("_", "").replace(" ", "").replace("-", "")
