"""Teacher data alone: any number of teachers answer the rows of a file, in one pass.

inputs ──────┬ curate ─ ask
evaluation ──┘

Without a section `curate`, inputs ─ ask.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.recipe import LoadedRecipe, Recipe
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


class Evaluation(Section):
    """Rows that a student will be measured on: no teacher is asked about a copy of one."""

    file: str
    """JSONL or Parquet file beside the recipe."""
    field: str | None = None
    """Which of its fields holds the text; the one of `curate.field` if absent."""
    ngram: int = Field(default=8, ge=1)
    """Input rows that share this many words in a row with one of them are dropped, or all of its
    words where it has fewer."""


class CurateInputs(CurateTexts):
    """Which input rows are worth asking about."""

    field: str
    """The field whose text is judged. Rows with equal texts are one question, whatever stands in
    their other fields: the first stays."""
    min_words: int = Field(default=1, ge=1)
    """Words of the text at least."""
    max_words: int | None = Field(default=None, ge=1)
    """Words of the text at most; no limit if absent."""
    evaluation: Evaluation | None = None
    """What input rows are held against."""


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
    curate: CurateInputs | None = None
    """Which of them are worth asking about; all if absent."""
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
        files = {"inputs.file": self.inputs.file, **super().files()}
        if self.curate is not None and self.curate.evaluation is not None:
            files["curate.evaluation.file"] = self.curate.evaluation.file
        return files


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, TeacherDataRecipe)
    asked = {name: ask.model_dump(exclude={"samples"}) for name, ask in recipe.ask.items()}
    samples = {name: ask.samples for name, ask in recipe.ask.items()}
    layout = [_read("inputs", recipe.inputs.file, recipe.inputs.columns)]
    if recipe.curate is not None:
        layout += _curate(recipe.curate)
    return [
        *layout,
        Stage(
            name="ask",
            run="pipelines.asking:ask",
            ray=False,
            settings={"ask": asked},
            extent={"samples": samples},
            growing={"inputs": layout[-1].name},
            teachers=list(recipe.ask),
            asks=samples,
            made_from={"seed": recipe.seed},
        ),
    ]


def _read(name: str, file: str, columns: dict[str, str]) -> Stage:
    return Stage(
        name=name,
        run="pipelines.inputs:read_inputs",
        ray=False,
        settings={"file": file, "columns": columns},
        files=[file],
    )


def _curate(curate: CurateInputs) -> list[Stage]:
    """Curation, after the reading of the evaluation rows where there are any."""
    settings, inputs, before = curate.model_dump(), {"inputs": "inputs"}, []
    if curate.evaluation is not None:
        before = [_read("evaluation", curate.evaluation.file, {})]
        inputs["evaluation"] = "evaluation"
        field = curate.evaluation.field or curate.field
        settings["evaluation"] = {"field": field, "ngram": curate.evaluation.ngram}
    run = "pipelines.input_curation:curate_inputs"
    return [*before, Stage(name="curate", run=run, ray=False, settings=settings, inputs=inputs)]
