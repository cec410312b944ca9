"""A teacher behind the same HTTP path as its student, so that the two can be compared."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.recipe_serving import Serve
from core.teacher import Engine, LabelScores
from serving.answers import Answer, Question
from serving.models import Description


class ChoiceScorer(Protocol):
    """How a teacher is asked to choose; travels to the replica."""

    @property
    def choices(self) -> Sequence[str] | None:
        """What it chooses from; None where questions bring their choices."""
        ...

    @property
    def offsets(self) -> Sequence[float]:
        """Per choice, subtracted from its log-probability (calibration); zeros for raw scores.

        None where questions bring their choices.
        """
        ...

    async def score(self, engine: Engine, question: str, choices: list[str]) -> LabelScores:
        """Log-probabilities of the choices, by all the prompts that it takes."""
        ...


@dataclass(frozen=True)
class PromptedTeacher:
    """A teacher that chooses by label scores, ready to be served."""

    engine: Engine
    """Runs already; any object that can be pickled."""
    scorer: ChoiceScorer

    holds_device = False

    @property
    def description(self) -> Description:
        """What is told of it."""
        own = self.scorer.choices
        choices = None if own is None else tuple(own)
        return Description("teacher", "causal", choices, runs_on=self.engine.model)

    def load(self, settings: Serve) -> LoadedTeacher:  # noqa: ARG002, the engine has its own
        """The teacher in a replica; the engine runs already."""
        return LoadedTeacher(self)


class LoadedTeacher:
    """Has the engine score the choices, and calibrates its scores."""

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
        own = self.description.choices
        if own is not None and question.choices is not None:
            return Answer((), [], error="this model has choices of its own: ask /v1/classify")
        choices = own or question.choices
        if choices is None:
            detail = "this model needs a question with choices: ask /v1/multiple-choice"
            return Answer((), [], error=detail)
        scorer = self._teacher.scorer
        scores = await scorer.score(self._teacher.engine, question.text, list(choices))
        if scores.error:
            return Answer((), [], scores.usage, scores.error)
        found = choice_probabilities(scores.logprobs, scorer.offsets or [0.0] * len(choices))
        return Answer(choices, found, scores.usage)


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
