"""What a recipe says of its teachers: engines, endpoints, and answers that are there already."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from core.recipe_section import Device, Section

SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""Names of variables whose values must not stand in a file."""

REFERENCE = re.compile(r"\$\{(\w+)\}")
"""A value that is taken from the environment."""


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
    prompt that is equal to it, blanks around either aside. Of a conversation's later turns that is
    all that the user has said so far, a line each."""
    system: str | None = None
    """Column with the system text that stood before it, empty or null where there was none; if
    absent, a record answers its prompt behind any."""
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
