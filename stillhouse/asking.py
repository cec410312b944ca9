"""Asking teachers about the rows of a file: sections and stages that several methods have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from core.recipe import Recipe
from core.recipe_curation import CurateTexts
from core.recipe_prompts import Prompt, as_prompt
from core.recipe_section import Name, Section
from core.recipe_teachers import EndpointTeacher, RecordedTeacher
from pipelines.datasets import DatasetFormat
from pipelines.prompt_library import resolved
from stillhouse.stages import Stage

ASK = "pipelines.asking:ask"
"""The function of stages that ask teachers about rows."""


class Inputs(Section):
    """The rows that teachers are asked about."""

    file: str
    """File beside the recipe. JSONL or Parquet, in which every row is an object of fields, where
    no format is named."""
    format: DatasetFormat | None = None
    """The data set whose authors publish such files; its rows are read into the fields that the
    prompts of the library use."""
    columns: dict[str, str] = {}
    """The file's name of a field, by the name that prompts use. Others keep their names."""
    limit: int | None = Field(default=None, ge=1)
    """Rows of this file at most, drawn by their content; as the recipe's own `limit` if absent."""


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

    prompt: Annotated[str, Field(min_length=1)] | Prompt
    """Jinja text that is filled in with the row's fields, such as `Question: {{ question }}`, or a
    template."""
    samples: int = Field(default=1, ge=1)
    """Answers to each row."""
    seeded: bool = False
    """Each answer is drawn with a seed of its own, from its id; costly on a CPU."""
    sampling: Sampling = Sampling()
    """How they are drawn."""


class AskingRecipe(Recipe):
    """The sections of every method in which teachers are asked about the rows of a file."""

    ask: dict[Name, Ask] = Field(min_length=1)
    """By teacher: what it is asked."""
    limit: int | None = Field(default=None, ge=1)
    """Rows of each file at most, drawn by their content, so the same ones every time; all if
    absent."""

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
        prompts = {f"ask.{name}.prompt": as_prompt(ask.prompt) for name, ask in self.ask.items()}
        return {**prompt_files(prompts), **super().files()}

    def with_prompts(self, folder: Path, place: Callable[[str], str]) -> Self:
        """The same recipe with the texts of its prompts in the place of templates' names."""
        asks = {}
        for name, ask in self.ask.items():
            key = f"ask.{name}.prompt"
            prompt = resolved(ask.prompt, None, folder, None, key=key, place=place)
            asks[name] = ask.model_copy(update={"prompt": prompt})
        return self.model_copy(update={"ask": asks})


def prompt_files(prompts: dict[str, Prompt]) -> dict[str, str]:
    """Template files among prompts, by the dotted key that names them."""
    return {f"{key}.file": prompt.file for key, prompt in prompts.items() if prompt.file}


def converses(recipe: AskingRecipe, teacher: str) -> bool:
    """Whether a teacher can be asked in conversations, as the recipe has it."""
    section = recipe.teachers[teacher]
    if isinstance(section, EndpointTeacher):
        return section.api == "chat"
    return isinstance(section, RecordedTeacher) or recipe.ask[teacher].sampling.chat


def read_file(name: str, inputs: Inputs, limit: int | None) -> Stage:
    """The stage that reads a file of rows.

    Args:
        name: The stage's.
        inputs: Which file.
        limit: Rows at most.
    """
    return Stage(
        name=name,
        run="pipelines.inputs:read_inputs",
        ray=False,
        settings={
            "file": inputs.file,
            "columns": inputs.columns,
            "format": inputs.format,
            "limit": inputs.limit or limit,
        },
        files=[inputs.file],
    )


def curate_stage(
    name: str, rows: str, curate: CurateField, evaluation: dict[str, Any] | None
) -> Stage:
    """The stage that says which rows are worth asking about.

    Args:
        name: The stage's.
        rows: The stage that has the rows.
        curate: The recipe's section.
        evaluation: Which field and how many words are compared with the rows of which stage;
            None where they are not.
    """
    keys = set(CurateField.model_fields)
    compared = evaluation and {key: evaluation[key] for key in ("field", "ngram")}
    return Stage(
        name=name,
        run="pipelines.input_curation:curate_inputs",
        ray=False,
        settings={**curate.model_dump(include=keys), "evaluation": compared},
        inputs={"inputs": rows, **({"evaluation": evaluation["stage"]} if evaluation else {})},
    )


@dataclass(frozen=True)
class Decided:
    """What of the asking is chosen by a stage before it: the sampling, and perhaps the prompt."""

    stage: str
    prompt: bool


def ask_stage(
    name: str,
    recipe: AskingRecipe,
    asks: dict[str, Ask],
    rows: str,
    *,
    turns: str | None = None,
    decided: Decided | None = None,
) -> Stage:
    """The stage in which teachers are asked about the rows of another.

    Args:
        name: The stage's.
        recipe: Has the teachers.
        asks: By teacher: what it is asked.
        rows: The stage that has the rows.
        turns: Of conversations: the field with what the user says.
        decided: What is chosen before, and so is not as `asks` has it.
    """
    samples = {teacher: ask.samples for teacher, ask in asks.items()}
    left: set[str] = set()
    if decided is not None:
        left = {"sampling", "prompt", "json_schema"} if decided.prompt else {"sampling"}
    settings = {
        teacher: {key: value for key, value in _asked(ask).items() if key not in left}
        for teacher, ask in asks.items()
    }
    return Stage(
        name=name,
        run=ASK,
        ray=False,
        settings={"ask": settings, "turns": turns},
        extent={"samples": samples},
        growing={"inputs": rows},
        decisions={"chosen": decided.stage} if decided else {},
        teachers=list(asks),
        asks=samples,
        made_from={"seed": recipe.seed},
    )


def _asked(ask: Ask) -> dict[str, Any]:
    """What decides an answer; how it is read afterwards does not."""
    settings = ask.model_dump(exclude={"samples", "prompt"})
    schema = as_prompt(ask.prompt).json_schema
    # Only where there is one: what is asked without is the same work as ever.
    held = {"json_schema": schema} if schema else {}
    return {"prompt": asked_texts(ask.prompt), **settings, **held}


def asked_texts(prompt: str | Prompt) -> Any:
    """The texts of a prompt: the user's alone where nothing stands before it."""
    whole = as_prompt(prompt)
    return {"user": whole.text, "system": whole.system} if whole.system else whole.text
