"""What a recipe says of the search for a prompt (OPRO, 2309.03409, as 2403.15886 uses it)."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from core.recipe_prompts import Prompt
from core.recipe_section import Name, Section

INSTRUCTION = re.compile(r"\{\{\s*instruction\s*\}\}")
"""The place in a prompt that an instruction is put into."""


class Proposing(Section):
    """How the optimizer's proposals are drawn."""

    max_tokens: int = Field(default=200, ge=1)
    """Tokens of a proposal at most."""
    temperature: float = Field(default=1.0, gt=0)
    """Above 0: proposals of a round are draws from one prompt, and equal ones are of no use."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that is drawn from; costly to compute on a CPU."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Tokens less likely than this share of the likeliest one are never drawn."""
    stop: list[str] = []
    """Texts at which a proposal ends; they are not part of it."""
    chat: bool = True
    """The model's chat template goes around the meta-prompt; endpoints decide by their `api`."""


class Optimize(Section):
    """The search for the instruction in the prompt of `ask`, which has it as `{{ instruction }}`.

    In each round a model is shown the best instructions so far with their scores, and proposes
    others. A proposal's score is the accuracy of the teacher on the same few rows every time. At
    the end the best by score are compared on other rows, and the teacher is asked by the winner.
    """

    optimizer: Name
    """The teacher that proposes instructions; it may be the one that is asked."""
    start: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Instructions to begin with."""
    rounds: int = Field(default=20, ge=1)
    """Rounds of proposals; later raised, the search goes on."""
    candidates: int = Field(default=8, ge=1)
    """Proposals of a round."""
    keep: int = Field(default=15, ge=1)
    """Instructions that the optimizer is shown, the best of all so far."""
    exemplars: int = Field(default=3, ge=0)
    """Rows with their right answers that it is shown, the same in every round."""
    scoring: int = Field(default=25, ge=1)
    """Rows that every instruction is scored on."""
    validation: int = Field(default=50, ge=1)
    """Rows that the best are compared on at the end."""
    finalists: int = Field(default=3, ge=1)
    """How many are."""
    held_out: int = Field(default=100, ge=1)
    """Rows on which the winner, and the best of those to begin with, are scored once."""
    max_characters: int = Field(default=500, ge=1)
    """Characters of an instruction at most."""
    placeholders: dict[Name, Annotated[str, Field(min_length=1)]] = {}
    """Names that an instruction must hold in single braces, each once, such as `{question}`, and
    the Jinja text that stands for each in the prompt, such as `{{ question }}`. An instruction
    without its names, or with other braces, is none."""
    meta_prompt: str | Prompt = Prompt(library="optimization/instructions")
    """What the optimizer is asked: Jinja text or a template with `scored`, a list of `text` and
    `score` in rising order, `exemplars`, a list of `input` and `output`, and `placeholders`. Its
    `answer` says where the proposal stands."""
    sampling: Proposing = Proposing()
    """How proposals are drawn."""

    @model_validator(mode="after")
    def _begins_with_different_ones(self) -> Self:
        if len(set(self.start)) < len(self.start):
            raise ValueError("start has an instruction twice")
        return self
