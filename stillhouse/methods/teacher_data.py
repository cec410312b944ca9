"""Teacher data alone: any number of teachers answer the rows of a file, in one pass.

inputs ─ ask
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.recipe import LoadedRecipe, Name, Recipe, RecordedTeacher, Section
from stillhouse.stages import Stage


class Inputs(Section):
    """The rows that teachers are asked about."""

    file: str
    """JSONL or Parquet file beside the recipe; every row is an object of fields."""
    columns: dict[str, str] = {}
    """The file's name of a field, by the name that prompts use. Others keep their names."""


class Sampling(Section):
    """How an answer is drawn."""

    max_tokens: int = Field(default=256, ge=1)
    """Tokens of an answer at most."""
    temperature: float = Field(default=1.0, ge=0)
    """0 takes the likeliest token every time."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that is drawn from; costly to compute on a CPU."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Tokens less likely than this share of the likeliest one are never drawn."""
    stop: list[str] = []
    """Texts at which an answer ends; they are not part of it."""
    json_schema: dict[str, Any] | None = None
    """Answers are held to this schema by structured decoding."""
    chat: bool = False
    """The model's chat template goes around the prompt; endpoints decide by their `api`."""
    system: str = ""
    """What stands before the conversation, in a chat."""
    top_logprobs: int = Field(default=0, ge=0, le=128)
    """Likeliest tokens to keep for every token that is written, for logit distillation."""


class Ask(Section):
    """What one teacher is asked about every row."""

    prompt: str = Field(min_length=1)
    """Jinja text that is filled in with the row's fields, such as `Question: {{ question }}`."""
    samples: int = Field(default=1, ge=1)
    """Answers to each row."""
    seeded: bool = False
    """Each answer is drawn with a seed of its own, from its id; costly on a CPU."""
    sampling: Sampling = Sampling()
    """How they are drawn."""


class TeacherDataRecipe(Recipe):
    """A recipe of this method."""

    method: Literal["teacher_data"]
    inputs: Inputs
    """The rows that teachers are asked about."""
    ask: dict[Name, Ask] = Field(min_length=1)
    """By teacher: what it is asked."""

    @model_validator(mode="after")
    def _teachers_exist(self) -> Self:
        for name in self.ask:
            if name not in self.teachers:
                known = ", ".join(self.teachers)
                raise ValueError(f"ask has '{name}', but teachers has: {known}")
        return self

    @model_validator(mode="after")
    def _records_are_as_they_are(self) -> Self:
        for name, ask in self.ask.items():
            if isinstance(self.teachers[name], RecordedTeacher):
                for key in ("top_logprobs", "json_schema"):
                    if getattr(ask.sampling, key):
                        raise ValueError(
                            f"ask.{name}.sampling.{key} cannot be had of recorded answers; leave "
                            "it out, or ask a teacher that runs"
                        )
        return self

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        return {"inputs.file": self.inputs.file, **super().files()}


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, TeacherDataRecipe)
    asked = {name: ask.model_dump(exclude={"samples"}) for name, ask in recipe.ask.items()}
    return [
        Stage(
            name="inputs",
            run="pipelines.inputs:read_inputs",
            ray=False,
            settings=recipe.inputs.model_dump(),
            files=[recipe.inputs.file],
        ),
        Stage(
            name="ask",
            run="pipelines.asking:ask",
            ray=False,
            settings={"ask": asked},
            extent={"samples": {name: ask.samples for name, ask in recipe.ask.items()}},
            growing={"inputs": "inputs"},
            teachers=list(recipe.ask),
            made_from={"seed": recipe.seed},
        ),
    ]
