"""What a recipe says of the choice of sampling settings and prompts."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from core.recipe_prompts import Prompt
from core.recipe_section import Name, Section

AS_ASKED = "as-asked"
"""The candidate that `ask` itself is."""


class SamplingChange(Section):
    """What of a teacher's sampling another candidate changes."""

    temperature: float | None = Field(default=None, ge=0)
    """0 takes the likeliest token every time."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Share of the probability that is drawn from."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Tokens less likely than this share of the likeliest one are never drawn."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of an answer at most."""


class Select(Section):
    """How a teacher is to be asked: chosen on rows of its own (2410.18588, equations 3 to 5).

    First the sampling, with the prompt that `ask` has, then the prompt with that sampling; the best
    by the task's metric, of equals the first.
    """

    rows: int = Field(default=100, ge=1)
    """Rows that candidates are compared on, drawn by their ids."""
    sampling: dict[Name, SamplingChange] = {}
    """By name: other sampling settings than those of `ask`."""
    prompts: dict[Name, Annotated[str, Field(min_length=1)] | Prompt] = {}
    """By name: other elaborate prompts than that of `ask`."""

    @model_validator(mode="after")
    def _there_is_a_choice(self) -> Self:
        if not self.sampling and not self.prompts:
            raise ValueError("there is nothing to choose from: give sampling or prompts")
        if AS_ASKED in {*self.sampling, *self.prompts}:
            raise ValueError(f"'{AS_ASKED}' is how the candidate of `ask` is called")
        return self
