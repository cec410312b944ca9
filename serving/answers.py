"""What a served model is asked and what it answers, between its replica and the front."""

from __future__ import annotations

from dataclasses import dataclass

from core.teacher import Usage


@dataclass(frozen=True)
class Question:
    """One input of a request."""

    text: str
    choices: tuple[str, ...] | None = None
    """Its own choices; None where the model's are meant."""


@dataclass(frozen=True)
class Answer:
    """Probabilities of the choices for one question, or the reason why there are none."""

    choices: tuple[str, ...]
    """What was chosen from."""
    probabilities: list[float]
    """One per choice, in their order; they sum to 1. Empty after an error."""
    usage: Usage | None = None
    """Tokens, where the model counts them."""
    error: str = ""
    """What is wrong with the question, for the person who sent it."""
    answered_by: str = ""
    """Who did, where several models stand behind one name: `canary`, or a cascade's model."""

    @property
    def best(self) -> int:
        """Number of the most probable choice, from 0; of equal ones the first."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        """The highest probability."""
        return max(self.probabilities)
