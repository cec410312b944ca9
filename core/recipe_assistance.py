"""What a recipe says of a teaching assistant: what it tells the student's learning to do."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.recipe_prompts import Prompt
from core.recipe_section import Name, Section


class TeacherBudget(Section):
    """What a teacher may answer about the rows that students learn from."""

    calls: int | None = Field(default=None, ge=0)
    """Questions to it, each a row and the number of a sample."""
    money: float | None = Field(default=None, ge=0)
    """In the price book's currency, by what it has for the tokens of the teacher's model. Until a
    call was answered, one counts as the dearest that it can be; afterwards as the mean of those
    that were."""

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if (self.calls is None) == (self.money is None):
            raise ValueError("give either calls or money")
        if not (self.calls or self.money):
            raise ValueError(
                "nothing may be asked, so the student would learn nothing of the teacher: raise "
                "calls or money"
            )
        return self


class Consistency(Section):
    """How the student's self-consistency is found."""

    samples: int = Field(default=8, ge=1)
    """Answers that it draws to each row."""
    temperature: float = Field(default=0.7, gt=0)
    """Of these draws."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of each at most; the student's `max_answer_length` if absent."""


class Confidence(Section):
    """How the assistant's confidence in an answer is found. The forms are ours."""

    by: Literal["p_true", "likelihood"] = "p_true"
    """`p_true`: the share of `yes` in the probabilities of `yes` and `no` behind a prompt that
    shows the answer. `likelihood`: the mean likelihood of the answer's tokens, behind a prompt that
    does not."""
    prompt: Annotated[str, Field(min_length=1)] | Prompt | None = None
    """What the assistant reads: Jinja text with the row's fields, `asked`, which is what the
    student is asked, `answer` and `rationale`, empty where there is none; or a template. The
    library's `assistance/p_true` or `assistance/likelihood` if absent."""
    yes: str = Field(default=" yes", min_length=1)
    """Of `p_true`: what it goes on with where the answer is right. One token of its own."""
    no: str = Field(default=" no", min_length=1)
    """The same where it is wrong."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.yes.strip() == self.no.strip():
            raise ValueError("yes and no are the same word")
        return self


class Acquire(Section):
    """Which rows are put to the teacher, once the student is warmed up."""

    by: Literal["signals", "random"] = "signals"
    """`signals`: those in which least trust is put. `random`: for comparison."""
    consistency: float = Field(default=0.5, ge=0)
    """Weight of the student's self-consistency; 0 does without it."""
    student: float = Field(default=0.5, ge=0)
    """Weight of the assistant's confidence in the student's answer; 0 does without it."""

    @model_validator(mode="after")
    def _something_decides(self) -> Self:
        if self.by == "signals" and not self.consistency + self.student:
            raise ValueError("consistency and student are both 0: set by to random")
        return self

    @property
    def asks_assistant(self) -> bool:
        """Whether the assistant judges the student's answers."""
        return self.by == "signals" and bool(self.student)


class Trust(Section):
    """What becomes of the teacher's answers, by the assistant's confidence in them."""

    by: Literal["filter", "weight", "everything", "gold"] = "filter"
    """`filter`: those with less than `below`, or the lowest `share`, are not learnt. `weight`: each
    counts as much as its confidence. For comparison: `everything` learns all of them, and `gold`
    those that are right, as if somebody knew."""
    below: float | None = Field(default=None, gt=0, le=1)
    """Of `filter`: the confidence under which an answer is not learnt; 0.3 if neither is given."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Of `filter`: the share of the answers that is not learnt, those of the lowest confidence."""

    @model_validator(mode="after")
    def _filters_by_one_measure(self) -> Self:
        if self.by != "filter" and (self.below, self.share) != (None, None):
            raise ValueError(f"below and share are of filter, and by is {self.by}")
        if self.below is not None and self.share is not None:
            raise ValueError("give either below or share")
        return self

    @property
    def threshold(self) -> float | None:
        """The confidence under which an answer is not learnt; None where none decides."""
        if self.by != "filter" or self.share is not None:
            return None
        return 0.3 if self.below is None else self.below

    @property
    def asks_assistant(self) -> bool:
        """Whether the assistant judges the teacher's answers."""
        return self.by in ("filter", "weight")


class Assist(Section):
    """A teaching assistant between a student and a teacher that costs much (2406.05322)."""

    teacher: Name
    """The assistant: one of `teachers` that gives the probabilities of words."""
    budget: TeacherBudget
    """Of the teacher that is asked; the assistant is paid beside it."""
    warm_up: float = Field(default=0.25, ge=0, le=1)
    """Share of the budget for rows that are drawn at random, which the student first learns from.
    0: the student is asked as it comes. 1: nothing else is asked."""
    consistency: Consistency = Consistency()
    """The student's samples."""
    confidence: Confidence = Confidence()
    """The assistant's judgement."""
    acquire: Acquire = Acquire()
    """The rest of the budget."""
    trust: Trust = Trust()
    """What is learnt of what it has bought."""
