"""Shares of the traffic: a canary answers some requests, a shadow hears some and answers none."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ray.serve.metrics import Counter

from serving.answers import Answer, Question
from serving.models import Model

CANARY = "canary"
"""What is told to have answered."""

SHADOWS_IN_FLIGHT = 64
"""Shadow requests at once; more are left out, so that a slow shadow takes nothing from callers."""

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Share:
    """A model that gets a part of another one's requests."""

    model: Model
    share: float
    """0 to 1."""


class SharedModel:
    """A model with a canary or a shadow beside it."""

    def __init__(self, name: str, model: Model, canary: Share | None, shadow: Share | None) -> None:
        self.description = model.description
        self._name = name
        self._model = model
        self._canary = canary
        self._shadow = shadow
        self._draw = random.Random()  # noqa: S311, a share and no secret
        self._open: set[asyncio.Task[None]] = set()
        self._heard = Counter(
            "stillhouse_shadow",
            description="Texts and questions that the shadow heard: same, other, failed, left-out.",
            tag_keys=("model", "outcome"),
        )

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer questions, and say where the canary did."""
        if self._canary is not None and self._draw.random() < self._canary.share:
            answers = await self._canary.model.answer(questions)
            return [replace(answer, answered_by=CANARY) for answer in answers]
        answers = await self._model.answer(questions)
        if self._shadow is not None and self._draw.random() < self._shadow.share:
            self._cast_shadow(questions, answers)
        return answers

    def statistics(self) -> dict[str, float]:
        """Of the model itself."""
        return self._model.statistics()

    def _cast_shadow(self, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        if len(self._open) >= SHADOWS_IN_FLIGHT:
            self._count("left-out", len(questions))
            return
        task = asyncio.create_task(self._ask_shadow(questions, answers))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _ask_shadow(self, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        assert self._shadow is not None, "it was asked for"
        try:
            heard = await self._shadow.model.answer(questions)
        except Exception as error:  # whatever is wrong with a shadow, callers do not notice
            logger.warning("The shadow of %s failed: %s", self._name, type(error).__name__)
            self._count("failed", len(questions))
            return
        for one, other in zip(answers, heard, strict=True):
            if one.error or other.error:
                same = one.error == other.error
            else:
                same = one.choices[one.best] == other.choices[other.best]
            self._count("same" if same else "other", 1)

    def _count(self, outcome: str, number: int) -> None:
        self._heard.inc(number, tags={"model": self._name, "outcome": outcome})
