"""What a recipe says of its ablations: variants of itself, and what is claimed of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from core.recipe_section import Name, Section

AS_IT_IS = "as it is"
"""The variant that changes nothing."""


class Claim(Section):
    """What somebody, such as a paper, says of two variants, or of what one keeps of a gain."""

    says: str = Field(min_length=1)
    """In words, with where it is said."""
    better: str
    """The variant that is said to be the better one; `as it is` is the recipe itself."""
    than: str
    """The other."""
    by: float = Field(default=0.0, ge=0)
    """Percentage points by which it is better at least."""
    keeps: float | None = Field(default=None, gt=0, lt=1)
    """Instead: the share that `better` keeps at least of what `of` gains over `than`."""
    of: str | None = None
    """Of `keeps`: the variant with the whole gain."""

    @property
    def variants(self) -> list[str]:
        """All that are compared."""
        return [self.better, self.than, *([self.of] if self.of else [])]

    @model_validator(mode="after")
    def _keeps_of_something(self) -> Self:
        if (self.keeps is None) != (self.of is None):
            raise ValueError("keeps and of go together: a share of the gain of which variant")
        if self.keeps is not None and self.by:
            raise ValueError("keeps and by are two claims: write each by itself")
        return self


class Ablation(Section):
    """Variants of the recipe, each with several seeds, and what is claimed of them."""

    student: Name | None = None
    """Whose answers to the evaluation rows are compared; the recipe's first if absent."""
    judged_by: Literal["answer", "choice"] = "answer"
    """Of a student that writes: whether what it wrote is the right answer, or whether the choice is
    that it would most likely write; that needs `evaluation.score_choices`."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2], min_length=1)
    """Values of `seed`: a run of each variant with each of them."""
    variants: dict[str, Annotated[dict[str, Any], Field(min_length=1)]] = Field(min_length=1)
    """By name: what is changed, by dotted key as in `--set`."""
    claims: list[Claim] = []
    """What is judged by the measured differences."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if AS_IT_IS in self.variants:
            raise ValueError(f"variants has '{AS_IT_IS}', which is the recipe itself")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds has one twice")
        for name, changes in self.variants.items():
            if "seed" in changes:
                raise ValueError(f"variants has '{name}' with a seed of its own: name it in seeds")
        return self

    @model_validator(mode="after")
    def _claims_are_of_variants(self) -> Self:
        names = (AS_IT_IS, *self.variants)
        for claim in self.claims:
            unknown = next((n for n in claim.variants if n not in names), None)
            if unknown is not None:
                known = ", ".join(names)
                raise ValueError(f"claims has '{unknown}', but the variants are: {known}")
            twice = next((n for n in claim.variants if claim.variants.count(n) > 1), None)
            if twice is not None:
                raise ValueError(f"claims compares '{twice}' with itself")
        return self
