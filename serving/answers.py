"""What a served model answers about one text, between its replica and the front."""

from __future__ import annotations

from dataclasses import dataclass

from core.teacher import Usage


@dataclass(frozen=True)
class Answer:
    """Probabilities of the choices for one text, or the reason why there are none."""

    probabilities: list[float]
    """One per choice, in the model's order; they sum to 1. Empty after an error."""
    usage: Usage | None = None
    """Tokens, where the model's engine counts them."""
    error: str = ""
    """What is wrong with the text, for the person who sent it."""
