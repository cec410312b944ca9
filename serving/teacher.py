"""A teacher behind the same HTTP path as its student, so that the two can be compared."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ray import serve

from core.recipe import Serve
from core.teacher import Engine
from serving.answers import Answer

IN_FLIGHT = 256
"""Requests that the teacher's front holds open at once; its engine queues what it cannot run."""


class ChoicePrompt(Protocol):
    """How a teacher is asked to choose; travels to the replica."""

    labels: list[str]
    """The single-token label of each choice, in the order of the task's choices."""
    offsets: list[float]
    """Per label, subtracted from its log-probability (calibration); zeros for raw scores."""

    def prompt(self, question: str) -> str:
        """The text after which the labels are scored."""
        ...


@dataclass(frozen=True)
class PromptedTeacher:
    """A teacher that chooses by label scores, ready to be served."""

    engine: Engine
    """Runs already; any object that can be pickled."""
    prompt: Callable[[str], str]
    """Renders a question; the labels are scored after it."""
    labels: list[str]
    """The single-token label of each choice."""
    offsets: list[float]
    """Per label, subtracted from its log-probability; zeros for raw scores."""
    choices: tuple[str, ...]
    """What it chooses from, in the order of the labels."""

    def bind(self, name: str, settings: Serve) -> serve.Application:  # noqa: ARG002
        """Lay out the deployment that asks the engine; the engine holds the cores, not this."""
        deployment = serve.deployment(
            name=name, max_ongoing_requests=IN_FLIGHT, ray_actor_options={"num_cpus": 0}
        )
        return deployment(TeacherFront).bind(self.engine, self.prompt, self.labels, self.offsets)


class TeacherFront:
    """The replica: renders the prompt, asks the engine, calibrates its scores."""

    def __init__(
        self,
        engine: Engine,
        prompt: Callable[[str], str],
        labels: list[str],
        offsets: list[float],
    ) -> None:
        self._engine = engine
        self._prompt = prompt
        self._labels = labels
        self._offsets = offsets

    async def classify(self, texts: list[str]) -> list[Answer]:
        """Answer texts, all of them in the engine at once."""
        return await asyncio.gather(*(self._answer(text) for text in texts))

    async def _answer(self, text: str) -> Answer:
        scores = await self._engine.score_labels(self._prompt(text), self._labels)
        if scores.error:
            return Answer([], scores.usage, scores.error)
        return Answer(choice_probabilities(scores.logprobs, self._offsets), scores.usage)


def choice_probabilities(logprobs: Sequence[float], offsets: Sequence[float]) -> list[float]:
    """Renormalise label scores over the choices, after subtracting the offsets.

    Args:
        logprobs: Natural-log probabilities of the labels over the whole vocabulary.
        offsets: The same for inputs without content, or zeros.
    """
    scores = [score - offset for score, offset in zip(logprobs, offsets, strict=True)]
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
