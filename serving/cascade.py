"""A student that asks its teacher where it is not sure enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.recipe_serving import Serve
from serving.answers import Answer, Question
from serving.models import Description, Model, ServedModel


@dataclass(frozen=True)
class CascadeStudent:
    """A student with its teacher behind it, ready to be served as one model."""

    student: ServedModel
    teacher: ServedModel
    threshold: float
    """A student that is surer than this answers itself."""
    student_name: str
    teacher_name: str

    holds_device = True

    @property
    def description(self) -> Description:
        """What is told of it."""
        told = self.student.description
        return replace(told, role="cascade", family=f"{told.family}, then its teacher")

    def load(self, settings: Serve) -> LoadedCascade:
        """Load the student; the teacher's engine runs already."""
        return LoadedCascade(self, self.student.load(settings), self.teacher.load(settings))


class LoadedCascade:
    """Both, in a replica."""

    def __init__(self, cascade: CascadeStudent, student: Model, teacher: Model) -> None:
        self._cascade = cascade
        self._student = student
        self._teacher = teacher
        self.description = replace(
            cascade.description,
            max_tokens=student.description.max_tokens,
            revision=student.description.revision,
            runs_on=f"{student.description.runs_on}; {teacher.description.runs_on}",
        )

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer questions; each says who did."""
        answers = [
            replace(answer, answered_by=self._cascade.student_name)
            for answer in await self._student.answer(questions)
        ]
        unsure = [
            number
            for number, answer in enumerate(answers)
            if not answer.error and answer.confidence <= self._cascade.threshold
        ]
        if unsure:
            asked = await self._teacher.answer([questions[number] for number in unsure])
            for number, answer in zip(unsure, asked, strict=True):
                # A teacher may refuse what a student cuts, such as a long text.
                if not answer.error:
                    answers[number] = replace(answer, answered_by=self._cascade.teacher_name)
        return answers

    def statistics(self) -> dict[str, float]:
        """Of the student."""
        return self._student.statistics()
