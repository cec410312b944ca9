"""A teacher behind the same HTTP path as its student, so that the two can be compared."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.recipe_serving import Serve
from core.teacher import Engine
from serving.answers import Answer, Question
from serving.models import Description


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

    holds_device = False

    @property
    def description(self) -> Description:
        """What is told of it."""
        return Description("teacher", "causal", self.choices, runs_on=self.engine.model)

    def load(self, settings: Serve) -> LoadedTeacher:  # noqa: ARG002, the engine has its own
        """The teacher in a replica; the engine runs already."""
        return LoadedTeacher(self)


class LoadedTeacher:
    """Renders the prompt, asks the engine, calibrates its scores."""

    def __init__(self, teacher: PromptedTeacher) -> None:
        self.description = teacher.description
        self._teacher = teacher

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer questions, all of them in the engine at once."""
        return await asyncio.gather(*(self._answer(question) for question in questions))

    def statistics(self) -> dict[str, float]:
        """Of the engine."""
        return self._teacher.engine.statistics()

    async def _answer(self, question: Question) -> Answer:
        teacher = self._teacher
        if question.choices is not None:
            return Answer((), [], error="this model has choices of its own: ask /v1/classify")
        prompt = teacher.prompt(question.text)
        scores = await teacher.engine.score_labels(prompt, teacher.labels)
        if scores.error:
            return Answer((), [], scores.usage, scores.error)
        found = choice_probabilities(scores.logprobs, teacher.offsets)
        return Answer(teacher.choices, found, scores.usage)


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
