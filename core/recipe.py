"""What a recipe may say: strict models of every section that more than one method shares.

Each method adds its own sections in a subclass of `Recipe` (see `stillhouse/methods/`). A key that
no model knows, a wrong type or an impossible value is an error; `core.recipe_file` turns it into
one message with the line. The text under a field is its documentation: it goes into the JSON
Schema that editors read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""Lower-case letters, digits, dots, dashes and underscores: it becomes a folder and a URL."""


SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""Names of variables whose values must not stand in a file."""

REFERENCE = re.compile(r"\$\{(\w+)\}")
"""A value that is taken from the environment."""


class Section(BaseModel):
    """Base of every section: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Task(Section):
    """What the student must learn, in the words that the teacher reads."""

    instruction: str = Field(min_length=1)
    """One or two sentences that tell a person, or a model, what to do with an input."""
    question_name: str = "Question"
    """What an input is called in prompts, such as `Headline`."""
    answer_name: str = "Answer"
    """What an answer is called in prompts, such as `News desk`."""
    choices: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2)
    """The answers to choose from, the same for every row."""
    examples: str
    """JSONL file of the few labelled rows that the method starts from, beside the recipe:
    {"question": ..., "answer": ...}."""
    evaluation: str
    """JSONL file of labelled rows that nothing is learnt from: before the evaluation they are only
    read to drop items that copy from them."""

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        folded = [choice.strip().casefold() for choice in self.choices]
        if len(set(folded)) < len(folded):
            raise ValueError("two choices are the same but for case or blanks")
        return self


class Device(Section):
    """The hardware of one engine, one training worker or one serving replica."""

    kind: str = "cpu-core"
    """Its name in the price book, such as `cpu-core` or `h100`."""
    cpus: float = Field(default=1, gt=0)
    """Cores per engine, worker or replica, as Ray counts them."""
    gpus: float = Field(default=0, ge=0)
    """GPUs per engine, worker or replica, as Ray counts them."""

    @property
    def count(self) -> float:
        """How many devices are paid for: the GPUs where there are any, otherwise the cores."""
        return self.gpus or self.cpus


class Replicas(Section):
    """How many engines there are."""

    min: int = Field(default=1, ge=1)
    """At least, for as long as a stage needs the teacher."""
    max: int = Field(ge=1)
    """At most, while there is work for them."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, below min, {self.min}")
        return self


PARALLEL = ("tensor", "pipeline", "data")
"""vLLM's ways to divide a model; their sizes multiply to its workers."""


class Teacher(Section):
    """A model whose answers the student learns from, on vLLM."""

    backend: Literal["vllm"] = "vllm"
    """Where its answers come from."""
    model: str
    """`embedded://NAME`, a local folder, an object-store path or a hub id."""
    adapter: str | None = None
    """A LoRA adapter that is put on the model, named as a model is."""
    engine: dict[str, Any] = {}
    """Engine arguments, handed to vLLM as they are (`max_model_len`, `dtype`, ...)."""
    environment: dict[str, str] = {}
    """Environment variables of the engine's process. `${NAME}` is taken from the environment of
    `stillhouse run`; a secret can be written only so, as the recipe is kept in the run."""
    replicas: Annotated[int, Field(ge=1)] | Replicas = 1
    """Engines that run side by side: a fixed number, or {min, max} that grows with the work."""
    device: Device = Device()
    """What one engine runs on."""
    nodes: int = Field(default=1, ge=1)
    """Machines that one engine is spread over; each has an equal part of the device's GPUs."""

    @property
    def replica_bounds(self) -> Replicas:
        """The least and the greatest number of engines."""
        if isinstance(self.replicas, Replicas):
            return self.replicas
        return Replicas(min=self.replicas, max=self.replicas)

    @model_validator(mode="after")
    def _gpus_have_workers(self) -> Self:
        gpus = self.device.gpus
        workers = math.prod(int(self.engine.get(f"{kind}_parallel_size", 1)) for kind in PARALLEL)
        if gpus > 1 and workers != gpus:
            raise ValueError(
                f"device has {gpus:g} GPUs and engine makes {workers} workers of one GPU: set "
                "tensor_parallel_size times pipeline_parallel_size to the number of GPUs"
            )
        if self.nodes > 1 and (gpus < self.nodes or gpus % self.nodes):
            raise ValueError(f"{gpus:g} GPUs cannot be divided equally among {self.nodes} nodes")
        return self

    @field_validator("environment")
    @classmethod
    def _no_secret(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            if SECRET.search(name) and not REFERENCE.fullmatch(value):
                raise ValueError(f"{name} looks like a secret: write ${{{name}}} and export it")
        return environment


class EndpointTeacher(Section):
    """A model whose answers the student learns from, behind an OpenAI-compatible endpoint."""

    backend: Literal["openai"]
    """Where its answers come from."""
    model: str = Field(min_length=1)
    """Its name at the endpoint, which is also its name in the price book."""
    base_url: str = Field(pattern=r"^https?://[^\s@?#]+$")
    """Address of the endpoint, such as `https://HOST/v1`; `/chat/completions` is put behind it."""
    api: Literal["chat", "completions"] = "chat"
    """`chat` sends a prompt as the user's message, `completions` as text to write on from. Labels
    follow their prompt directly only with `completions`."""
    length_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the tokens of an answer at most; models that think before they answer
    often take `max_completion_tokens` alone."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, in capitals; none sends no key."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests that the endpoint allows; unlimited if absent."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens that the endpoint allows, prompts and answers together; unlimited if absent."""
    max_concurrency: int = Field(default=64, ge=1)
    """Requests in flight."""
    max_tries: int = Field(default=6, ge=1)
    """Times that a request is sent before the endpoint counts as down."""
    timeout_seconds: float = Field(default=120, gt=0)
    """Seconds until a request that has no answer counts as failed."""
    top_logprobs: int = Field(default=20, ge=1)
    """Likeliest tokens to ask for when labels are scored. Many endpoints allow 20, some fewer; a
    vLLM server allows what its `max_logprobs` says."""

    @model_validator(mode="after")
    def _key_is_only_named(self) -> Self:
        # Not a pattern of the field: its error would show a key that stands here by mistake.
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise ValueError(
                "api_key_env is the name of an environment variable, in capitals, not a key"
            )
        return self


class RecordColumns(Section):
    """What the fields of a recorded answer are called in its files."""

    prompt: str = "prompt"
    """Column with what was asked: text, or a whole number such as an id. A record answers the
    prompt that is equal to it, blanks around either aside."""
    text: str | None = "text"
    """Column with what was answered; null where the files hold scores of labels alone."""
    tokens_in: str | None = None
    """Column with the prompt's tokens; unknown if absent."""
    tokens_out: str | None = None
    """Column with the answer's tokens; unknown if absent."""
    labels: str | None = None
    """Column with an object of natural-log probabilities by label; if absent, this teacher cannot
    score."""

    @model_validator(mode="after")
    def _hold_an_answer(self) -> Self:
        if self.text is None and self.labels is None:
            raise ValueError("neither text nor labels has a column: there is no answer in it")
        return self


class RecordedTeacher(Section):
    """A model whose answers somebody has already, in files: nothing is asked, and nothing paid."""

    backend: Literal["recorded"]
    """Where its answers come from."""
    model: str = Field(min_length=1)
    """The model that answered, as reports call it."""
    files: list[str] = Field(min_length=1)
    """JSONL and Parquet files beside the recipe, with a record for every answer. Records of one
    prompt are its samples, in the order of the files and of their rows."""
    columns: RecordColumns = RecordColumns()
    """The files' name of a field, by ours."""

    @model_validator(mode="after")
    def _files_differ(self) -> Self:
        if len(set(self.files)) < len(self.files):
            raise ValueError("files has a file twice: each record would count as two samples")
        return self


def _backend(teacher: Any) -> str:
    """Which kind of teacher a section is; vLLM where it does not say."""
    if isinstance(teacher, dict):
        return str(teacher.get("backend", "vllm"))
    return str(getattr(teacher, "backend", ""))


AnyTeacher = Annotated[
    Annotated[Teacher, Tag("vllm")]
    | Annotated[EndpointTeacher, Tag("openai")]
    | Annotated[RecordedTeacher, Tag("recorded")],
    Discriminator(_backend),
]
"""A teacher of any kind; `backend` says which."""


class Objective(Section):
    """The loss of a student that chooses: lambda*CE(y) + (1-lambda)*CE(p_tau) (2412.09807)."""

    hard_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    """lambda, the weight of the hard label; the rest goes to the teacher's soft label."""
    temperature: float = Field(default=1.0, ge=0.0)
    """tau of the teacher's softmax; 0 puts all weight on its first choice."""


class Train(Section):
    """How a student is trained."""

    epochs: int = Field(default=5, ge=1)
    """Passes over the training rows."""
    min_steps: int = Field(default=1, ge=1)
    """Optimizer steps at least: epochs are repeated until then, so that few rows train as long as
    many."""
    batch_size: int = Field(default=16, ge=1)
    """Rows per optimizer step, over all workers together."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak rate of AdamW."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    warmup_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the rate rises from zero; it then falls linearly to zero."""
    max_length: int = Field(default=256, ge=8)
    """Tokens of an input at most; longer ones are cut and counted."""
    objective: Objective = Objective()
    """The loss."""
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training rows held out to pick the best epoch; the evaluation rows never do."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage."""
    workers: int = Field(default=1, ge=1)
    """Ray Train workers."""
    device: Device = Device()
    """What one worker runs on."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimizer steps between checkpoints."""


class Student(Section):
    """A small model that takes over from the teacher."""

    family: Literal["encoder"] = "encoder"
    """The kind of model."""
    model: str
    """The model it starts from, named as a teacher's is."""
    train: Train = Train()
    """How it is trained."""


class Serve(Section):
    """How a student answers over HTTP."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port on this machine; 0 takes a free one."""
    replicas: int = Field(default=1, ge=1)
    """Student replicas."""
    device: Device = Device()
    """What one replica runs on."""
    max_batch_size: int = Field(default=32, ge=1)
    """Requests that share one forward pass at most."""
    batch_wait_ms: float = Field(default=2.0, ge=0)
    """Milliseconds that a request waits for others to join its batch."""


class Compare(Section):
    """Teacher and student on the same requests, over the same HTTP path."""

    requests: int = Field(default=200, ge=1)
    """Evaluation rows sent to each at most, in an order fixed by the seed."""
    concurrency: int = Field(default=8, ge=1)
    """Requests in flight."""
    requests_per_day: int = Field(default=100_000, ge=1)
    """The traffic at which break-even is told in days."""


class Budget(Section):
    """Where a run stops, cleanly and before it is exceeded; raised later, it goes on from there."""

    money: float | None = Field(default=None, gt=0)
    """In the price book's currency; every price must be known."""
    device_hours: float | None = Field(default=None, gt=0)
    """Of all devices together, start-up and idle time included."""
    tokens: int | None = Field(default=None, ge=1)
    """Through teachers, in and out."""


class NearDuplicates(Section):
    """Which items say nearly the same as an earlier one."""

    threshold: float = Field(default=0.8, ge=0.5, le=1)
    """Jaccard similarity of their character 4-grams, as MinHash estimates it, from which they do;
    one changed word of ten leaves 0.77 on average."""


class Languages(Section):
    """Which languages items may be in."""

    wanted: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] = Field(min_length=1)
    """ISO 639 codes, such as `en`."""
    min_probability: float = Field(default=0.02, gt=0, le=1)
    """Probability of the wanted languages together, at least. It is low because a short text
    leaves something to each of 139 languages: of the demonstration's English headlines a quarter
    are English with less than 0.5 and 0.2% with less than 0.02, while headlines in other
    languages stay below 0.005. Texts under 30 bytes are not judged."""


class CurateTexts(Section):
    """Which rows are worth asking a teacher about, by their texts."""

    near_duplicates: NearDuplicates | None = None
    """Rows that say nearly the same as an earlier one are dropped; `{}` takes the default
    threshold. Equal ones always are."""
    languages: Languages | None = None
    """Rows that are hardly in one of these languages are dropped."""


class Curate(CurateTexts):
    """Which generated items are worth scoring."""

    min_words: int = Field(default=3, ge=1)
    """Words of a question at least."""
    max_words: int = Field(default=40, ge=1)
    """Words of a question at most."""
    contamination_ngram: int | None = Field(default=8, ge=1)
    """Items that share this many words in a row with an evaluation row are dropped, or all of its
    words where it has fewer; null does not look."""
    max_class_ratio: float | None = Field(default=None, ge=1)
    """Items of a choice, for every item of the rarest choice, at most; the seed decides which ones
    of the rest are dropped."""


class Recipe(Section):
    """The sections that every method has."""

    name: Name
    """Names the run."""
    method: str
    """Which method: a module of `stillhouse/methods/`."""
    seed: int = Field(default=0, ge=0)
    """Seed of sampling, shuffling and training."""
    shard_rows: int = Field(default=64, ge=1)
    """Rows that are committed together: what a kill can cost."""
    teachers: dict[Name, AnyTeacher] = Field(min_length=1)
    """By name: the models that generate and score."""
    max_rejected: float | None = Field(default=None, gt=0, lt=1)
    """Share of a stage's rows that may be rejected; the run stops when there are more. No limit if
    absent."""
    budget: Budget = Budget()
    """What the run may cost."""
    prices: str | None = None
    """YAML price book beside the recipe; the one that comes with Stillhouse if absent."""

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        found = {} if self.prices is None else {"prices": self.prices}
        for name, teacher in self.teachers.items():
            if isinstance(teacher, RecordedTeacher):
                keys = (f"teachers.{name}.files.{n}" for n in range(len(teacher.files)))
                found.update(zip(keys, teacher.files, strict=True))
        return found


class StudentRecipe(Recipe):
    """The sections of every method that makes a student."""

    task: Task
    """What the student must learn."""
    students: dict[Name, Student] = Field(min_length=1)
    """By name: the models that are trained."""
    serve: Serve = Serve()
    """The endpoint."""
    compare: Compare = Compare()
    """The cost comparison."""

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        task = {"task.examples": self.task.examples, "task.evaluation": self.task.evaluation}
        return {**task, **super().files()}


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe together with the folder that its relative paths start from."""

    recipe: Recipe
    folder: Path

    @property
    def student_recipe(self) -> StudentRecipe:
        """The recipe, in a method that makes a student."""
        assert isinstance(self.recipe, StudentRecipe)
        return self.recipe

    def path(self, name: str) -> Path:
        """An input file that the recipe names, as a path on this machine."""
        return self.folder / name
