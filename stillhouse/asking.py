"""Asking teachers about the rows of a file: sections and stages that several methods have."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from core.recipe import Recipe
from core.recipe_curation import CurateTexts
from core.recipe_section import Name, Section
from core.recipe_teachers import RecordedTeacher
from stillhouse.stages import Stage


class Inputs(Section):
    """The rows that teachers are asked about."""

    file: str
    """JSONL or Parquet file beside the recipe; every row is an object of fields."""
    columns: dict[str, str] = {}
    """The file's name of a field, by the name that prompts use. Others keep their names."""


class CurateField(CurateTexts):
    """Which input rows are worth asking about, by one of their fields."""

    field: str
    """The field whose text is judged. Rows with equal texts are one question, whatever stands in
    their other fields: the first stays."""
    min_words: int = Field(default=1, ge=1)
    """Words of the text at least."""
    max_words: int | None = Field(default=None, ge=1)
    """Words of the text at most; no limit if absent."""


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


class AskingRecipe(Recipe):
    """The sections of every method in which teachers are asked about the rows of a file."""

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


def read_file(name: str, inputs: Inputs) -> Stage:
    """The stage that reads a file of rows."""
    return Stage(
        name=name,
        run="pipelines.inputs:read_inputs",
        ray=False,
        settings={"file": inputs.file, "columns": inputs.columns},
        files=[inputs.file],
    )


def curate_stage(curate: CurateField, evaluation: dict[str, Any] | None) -> Stage:
    """The stage that says which of the stage `inputs` is worth asking about.

    Args:
        curate: The recipe's section.
        evaluation: Which field and how many words are compared with the rows of the stage
            `evaluation`; None where they are not.
    """
    keys = set(CurateField.model_fields)
    return Stage(
        name="curate",
        run="pipelines.input_curation:curate_inputs",
        ray=False,
        settings={**curate.model_dump(include=keys), "evaluation": evaluation},
        inputs={"inputs": "inputs", **({"evaluation": "evaluation"} if evaluation else {})},
    )


def ask_stage(name: str, recipe: AskingRecipe, rows: str) -> Stage:
    """The stage in which all teachers are asked about the rows of another."""
    samples = {teacher: ask.samples for teacher, ask in recipe.ask.items()}
    return Stage(
        name=name,
        run="pipelines.asking:ask",
        ray=False,
        settings={"ask": {t: ask.model_dump(exclude={"samples"}) for t, ask in recipe.ask.items()}},
        extent={"samples": samples},
        growing={"inputs": rows},
        teachers=list(recipe.ask),
        asks=samples,
        made_from={"seed": recipe.seed},
    )
