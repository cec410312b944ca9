"""What a recipe says of a sweep: which of its keys take which values, and how they are tried."""

from __future__ import annotations

import math
from random import Random
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.identity import content_id
from core.recipe_section import Name, Section

DRAWS = 1000
"""For each trial, at most: values that were drawn before do not count."""


class Range(Section):
    """The values that a key may take, by one of the four."""

    choice: list[Any] | None = Field(default=None, min_length=2)
    """Any of these."""
    uniform: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """[low, high]: any number between them."""
    loguniform: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """[low, high]: any number between them, each power of ten as often as the others."""
    integer: list[int] | None = Field(default=None, alias="int", min_length=2, max_length=2)
    """[low, high]: any whole number between them, both included."""

    @model_validator(mode="after")
    def _one_that_can_be_drawn_from(self) -> Self:
        ends = [pair for pair in (self.uniform, self.loguniform, self.integer) if pair is not None]
        if len(ends) + (self.choice is not None) != 1:
            raise ValueError("give one of choice, uniform, loguniform and int")
        if any(low >= high for low, high in ends):
            raise ValueError("its low end is not below its high end")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError("loguniform begins above 0")
        return self

    def draw(self, random: Random) -> Any:
        """One of the values; numbers with four significant digits, for people to read."""
        if self.choice is not None:
            return random.choice(self.choice)
        if self.integer is not None:
            return random.randint(*self.integer)
        if self.loguniform is not None:
            low, high = self.loguniform
            number = math.exp(random.uniform(math.log(low), math.log(high)))
        else:
            assert self.uniform is not None, "one of the four is there"
            low, high = self.uniform
            number = random.uniform(low, high)
        return min(max(float(f"{number:.4g}"), low), high)


class Sweep(Section):
    """Trials of the recipe with other values, of which the best student is kept."""

    space: dict[str, Range] = Field(min_length=1)
    """By dotted key, as in `--set`, such as students.minilm.train.learning_rate."""
    trials: int = Field(ge=1)
    """How many different ones."""
    student: Name | None = None
    """Whose training is judged; the recipe's first if absent."""
    metric: Literal["validation_loss", "validation_accuracy"] = "validation_loss"
    """By which, on rows held out of the training rows. Where the loss itself is swept, its values
    cannot be compared, and accuracy can."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at a time at most; as many as the devices allow if absent."""
    scheduler: Literal["asha", "none"] = "asha"
    """`asha` stops trials that are worse than others were after as many epochs (1810.05934)."""
    grace_epochs: int = Field(default=1, ge=1)
    """Of asha: epochs after which a trial is judged first."""
    reduction_factor: float = Field(default=3.0, gt=1)
    """Of asha: of so many trials one goes on, for so many times the epochs."""
    seed: int = Field(default=0, ge=0)
    """Of the values that are tried."""

    def draw(self) -> list[dict[str, Any]]:
        """The values of each trial, by key.

        They follow from the seed, so that a sweep that was killed goes on with the same ones; more
        trials leave the first ones as they are. Fewer than are wanted where there are no more.
        """
        found: dict[str, dict[str, Any]] = {}
        for number in range(DRAWS * self.trials):
            values = {
                key: values.draw(Random(content_id(self.seed, number, key)))  # noqa: S311
                for key, values in self.space.items()
            }
            found.setdefault(content_id(values), values)
            if len(found) == self.trials:
                break
        return list(found.values())
