"""A teacher that writes, behind the same HTTP path as its student: the two can be compared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.recipe_serving import Serve
from core.teacher import Completion, Engine, Sampling
from serving.answers import Answer, Question
from serving.models import Description


@dataclass(frozen=True)
class TextTeacher:
    """A teacher that writes, ready to be served."""

    engine: Engine
    """Runs already; any object that can be pickled."""
    sampling: Sampling
    """How it was asked when it answered the rows that students learnt from."""
    samples: int
    """Answers to each prompt, as many as then."""

    holds_device = False

    @property
    def description(self) -> Description:
        """What is told of it."""
        return Description("teacher", "causal", None, runs_on=self.engine.model)

    def load(self, settings: Serve) -> LoadedTextTeacher:  # noqa: ARG002, the engine has its own
        """The teacher in a replica; the engine runs already."""
        return LoadedTextTeacher(self)


class LoadedTextTeacher:
    """Has the engine write on from prompts."""

    def __init__(self, teacher: TextTeacher) -> None:
        self.description = teacher.description
        self._teacher = teacher

    async def complete(self, prompt: str) -> list[Completion]:
        """As many completions as the teacher was asked for."""
        teacher = self._teacher
        wanted = (replace(teacher.sampling, number=number) for number in range(teacher.samples))
        return await asyncio.gather(
            *(teacher.engine.complete(prompt, sampling) for sampling in wanted)
        )

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """It does not choose."""
        return [Answer((), [], error="this model writes: ask /v1/completions") for _ in questions]

    def statistics(self) -> dict[str, float]:
        """Of the engine."""
        return self._teacher.engine.statistics()
