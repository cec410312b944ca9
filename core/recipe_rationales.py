"""What a recipe says of rationales: which rows have one, how long, and of which prompt."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.recipe_prompts import Prompt
from core.recipe_section import Name, Section
from core.recipe_selection import AS_ASKED

Fractions = dict[str, Annotated[float, Field(gt=0, le=1)]]
"""By the name of a prompt: its share of the rows; all shares together are 1."""


class Words(Section):
    """How many words are wanted."""

    min: int = Field(default=20, ge=1)
    """At least; 20 to 40 is best according to 2403.15886."""
    max: int = Field(default=40, ge=1)
    """At most."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, below min, {self.min}")
        return self


class RationaleLimits(Section):
    """Which of the rationales that teachers wrote are some."""

    min_words: int = Field(default=5, ge=1)
    """Shorter ones are none (2403.15886: fewer than five words)."""
    max_words: int | None = Field(default=None, ge=1)
    """Longer ones are none; no limit if absent."""
    trim_words: int | None = Field(default=None, ge=1)
    """Before that: one of more words ends with the last sentence that is whole within so many, or
    after so many words where there is none; as it was written if absent."""
    most_repeats: int | None = Field(default=None, ge=1)
    """Rows that may have the very same rationale: what stands for many says nothing of any. Further
    ones are none; no limit if absent."""

    @model_validator(mode="after")
    def _lengths_go_together(self) -> Self:
        for name in ("max_words", "trim_words"):
            most = getattr(self, name)
            if most is not None and most < self.min_words:
                raise ValueError(f"{name} is {most}, below min_words, {self.min_words}")
        return self


class Rationales(RationaleLimits):
    """Which rationales a student learns, of those that a teacher wrote."""

    share: float = Field(default=1.0, ge=0, le=1)
    """Explanation rate: share of the rows that have one. Rows are drawn by their ids, so those of a
    smaller share are among those of a larger one."""
    seed: int | None = Field(default=None, ge=0)
    """Of that draw, and of the mix of prompts; the recipe's if absent."""
    missing: Literal["masked", "blank"] = "masked"
    """What a row without a rationale learns beside its label: nothing, or, as the code of
    2403.15886 has it, to write a blank."""
    words: Words | None = None
    """How long prompts ask for one to be: they have it as `words.min` and `words.max`."""


class ForcedRationales(RationaleLimits):
    """The same where a teacher has seen the right answer, and might do no more than repeat it.

    The measure of that is ours: 2402.04616 has none.
    """

    min_new_words: int = Field(default=1, ge=0)
    """Different words that a rationale must have beside those that were known, articles and the
    like apart; one of fewer is none. 0 takes all of them."""
    known: Literal["answer", "question"] = "answer"
    """What was known: the words of the right answer, or those of the question, too."""


class FewShot(Section):
    """A prompt with examples beside the one of `ask`: what the examples cost, and what they give.

    Nothing is learnt from its answers.
    """

    prompt: Annotated[str, Field(min_length=1)] | Prompt
    """Jinja text or a template, which has the examples as `examples`."""
    examples: str
    """JSONL file beside the recipe: objects with whatever fields the prompt uses."""
    rows: int = Field(default=50, ge=1)
    """Rows that both prompts are compared on, drawn among those that `ask` is asked about."""


class Mix(Section):
    """Several prompts to one teacher, each for some of the rows (2403.15886).

    Which prompt gives a row its label, and which its rationale, is drawn by the row's id, each by
    itself. A row that has both from one prompt is asked once.
    """

    prompts: dict[Name, Annotated[str, Field(min_length=1)] | Prompt] = Field(min_length=1)
    """By name: other prompts than that of `ask`, which is called `as-asked`."""
    labels: Fractions = {AS_ASKED: 1.0}
    """By prompt: the share of the rows whose label it gives; of no effect where labels are gold."""
    rationales: Fractions = {AS_ASKED: 1.0}
    """By prompt: the share of the rationales that it gives."""

    @model_validator(mode="after")
    def _divides_the_rows(self) -> Self:
        if AS_ASKED in self.prompts:
            raise ValueError(f"prompts has '{AS_ASKED}', which is the prompt of `ask`")
        known = (AS_ASKED, *self.prompts)
        for name in ("labels", "rationales"):
            fractions: Fractions = getattr(self, name)
            unknown = next((prompt for prompt in fractions if prompt not in known), None)
            if unknown is not None:
                raise ValueError(f"{name} has '{unknown}', but the prompts are: {', '.join(known)}")
            total = math.fsum(fractions.values())
            if not math.isclose(total, 1.0, abs_tol=1e-6):
                raise ValueError(f"{name} has shares that make {total:g}, not 1")
        return self
