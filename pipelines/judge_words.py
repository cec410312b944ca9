"""Reading what judges write: a rating, ratings by several criteria, or which of two was better."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from core.recipe_prompts import Answer

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

VERDICTS = {"A": "first", "B": "second", "C": "tie"}
"""What the letters of a verdict mean."""

BEGINS = 50
"""Places of a text that are tried as the begin of an object."""


@dataclass(frozen=True)
class Rating:
    """What a judge thinks of an answer or of a question."""

    value: float
    criteria: dict[str, float]
    """By criterion; empty where none was asked for."""


def read_rating(text: str, answer: Answer | None, scale: tuple[float, float]) -> Rating | str:
    """The rating in what a judge wrote, or one sentence on why there is none.

    Args:
        text: What it wrote.
        answer: How its prompt says that the rating is found: the last match counts.
        scale: The least and the greatest rating.
    """
    pattern = re.compile(answer.pattern) if answer and answer.pattern else NUMBER
    found = None
    for match in pattern.finditer(text):
        found = match[1] if pattern.groups else match[0]
    number = NUMBER.search(found) if found else None
    if number is None:
        return "there is no rating in what the judge wrote"
    return _on_scale(float(number[0]), scale) or Rating(float(number[0]), {})


def read_criteria(text: str, criteria: list[str], scale: tuple[float, float]) -> Rating | str:
    """Ratings by several criteria, in a JSON object, with the one in all under `overall`.

    Args:
        text: What the judge wrote.
        criteria: Their names.
        scale: The least and the greatest rating.
    """
    for found in _objects(text):
        values = {key: _number(found.get(key)) for key in (*criteria, "overall")}
        if any(value is None for value in values.values()):
            continue
        numbers = {key: value for key, value in values.items() if value is not None}
        for value in numbers.values():
            fault = _on_scale(value, scale)
            if fault:
                return fault
        return Rating(numbers.pop("overall"), numbers)
    return "there is no JSON object with a rating by each criterion and in all"


def read_verdict(text: str, answer: Answer | None) -> str | None:
    """`first`, `second` or `tie`, in what a judge of two wrote; None where there is none.

    Args:
        text: What it wrote.
        answer: How its prompt says that the letter is found: the last match counts.
    """
    pattern = re.compile(answer.pattern if answer and answer.pattern else r"\[\[([ABC])\]\]")
    found = None
    for match in pattern.finditer(text):
        found = match[1] if pattern.groups else match[0]
    return VERDICTS.get(found.strip().upper()) if found else None


def _on_scale(value: float, scale: tuple[float, float]) -> str | None:
    """Why a rating is none; None where it is one."""
    if scale[0] <= value <= scale[1]:
        return None
    return f"the rating {value:g} is not between {scale[0]:g} and {scale[1]:g}"


def _number(value: Any) -> float | None:
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a text."""
    decoder, at, found = json.JSONDecoder(strict=False), -1, []
    for _ in range(BEGINS):
        at = text.find("{", at + 1)
        if at < 0:
            break
        try:
            value, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
