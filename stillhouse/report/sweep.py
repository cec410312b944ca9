"""A sweep in words, for the page and for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stillhouse.report import wording

METRICS = {
    "validation_loss": "loss on held-out rows",
    "validation_accuracy": "accuracy on held-out rows",
}

STATES = {
    "waits": "waits",
    "runs": "begun",
    "finished": "finished",
    "stopped": "stopped early",
    "failed": "failed",
}


def short_keys(keys: Sequence[str]) -> list[str]:
    """Keys by their last steps: as many as set each apart from the others."""
    found = []
    for key in keys:
        steps = key.split(".")
        tails = [".".join(steps[-length:]) for length in range(1, len(steps) + 1)]
        others = [f".{other}" for other in keys if other != key]
        alone = (t for t in tails if not any(other.endswith(f".{t}") for other in others))
        found.append(next(alone, key))
    return found


def value_in_words(value: Any) -> str:
    """A value of a recipe on one line."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def score_in_words(score: float | None, metric: str) -> str:
    """A metric: a share as a percentage."""
    if metric == "validation_accuracy":
        return wording.percent(score)
    return wording.number(score, 4)
