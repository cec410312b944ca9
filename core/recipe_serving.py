"""What a recipe says of a student's endpoint, and of the comparison with its teacher."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from core.recipe_section import Device, Section


class Autoscale(Section):
    """How many replicas there are, by the requests in progress."""

    min: int = Field(default=1, ge=0)
    """At least; 0 gives everything back where nobody asks, and the next request waits for the
    start."""
    max: int = Field(ge=1)
    """At most."""
    target_requests: float = Field(default=16, gt=0)
    """Requests in progress and waiting, for each replica: more start a replica, fewer stop one."""
    up_after_seconds: float = Field(default=10, ge=0)
    """How long there must be too many before a replica starts."""
    down_after_seconds: float = Field(default=300, ge=0)
    """How long there must be too few before one stops."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, below min, {self.min}")
        return self


class RequestLimits(Section):
    """What a request may ask for; one that asks for more is refused before any work."""

    body_bytes: int = Field(default=4 * 2**20, ge=1024)
    """Bytes of a request's body."""
    inputs: int = Field(default=256, ge=1)
    """Texts or questions in a request; of a student that writes, answers to write."""
    characters: int = Field(default=8000, ge=1)
    """Of one text, of a question with one of its choices, or of a conversation."""
    choices: int = Field(default=64, ge=2)
    """Choices of one question."""


class ApiKeys(Section):
    """Who may ask. The keys themselves stand nowhere: only their hashes do."""

    file: str | None = None
    """YAML file with the hashes, as `stillhouse key` writes it; read again when it changes. On
    Kubernetes a Secret that is mounted as a file."""
    env: str | None = None
    """Name of the environment variable that holds the same YAML, in capitals."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("give either file or env")
        # Not a pattern of the field: its error would show a key that stands here by mistake.
        if self.env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.env):
            raise ValueError("env is the name of an environment variable, in capitals")
        return self


class Tracing(Section):
    """OpenTelemetry traces of requests, by OTLP over HTTP; they need the extra `tracing`.

    They go where OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_ENDPOINT` and its like),
    in the environment that Ray is started in.
    """

    sample: float = Field(default=0.01, ge=0, le=1)
    """Share of the requests that are traced, where the caller has not decided it."""


Backend = Literal["torch", "torch-bfloat16", "onnx", "onnx-int8"]
"""What computes an encoder's forward pass: torch in float32 or bfloat16, or ONNX Runtime in float32
or with int8 weights (the extra `onnx`, on a CPU)."""


class Serve(Section):
    """How a student answers over HTTP."""

    host: str = "127.0.0.1"
    """Address that is listened on; `0.0.0.0` for all of the machine."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port on this machine; 0 takes a free one."""
    replicas: Annotated[int, Field(ge=1)] | Autoscale = 1
    """Student replicas: a fixed number, or {min, max} that follows the load."""
    device: Device = Device()
    """What one replica runs on."""
    backend: Backend | None = None
    """What computes an encoder's forward pass: `torch` as it was trained, `torch-bfloat16`, or on
    a CPU `onnx` and `onnx-int8`, which need the extra `onnx`. `torch` if absent."""
    engine: dict[str, Any] = {}
    """Engine arguments of causal students, handed to vLLM as they are (`max_model_len`, ...)."""
    max_batch_size: int = Field(default=32, ge=1)
    """Texts that share one forward pass at most; of a question each choice is one."""
    max_batch_tokens: int = Field(default=8192, ge=1)
    """Tokens of a forward pass at most, padding included."""
    batch_wait_ms: float = Field(default=2.0, ge=0)
    """Milliseconds that a request waits for others to join its batch."""
    max_ongoing: int = Field(default=128, ge=1)
    """Requests that a replica works on at once."""
    max_queued: int = Field(default=256, ge=1)
    """Requests that wait at a replica beside them; one more is answered with 429."""
    retry_after_seconds: float = Field(default=1, ge=0)
    """What an answer with 429 tells the caller to wait."""
    timeout_seconds: float = Field(default=60, gt=0)
    """After which a request is given up and answered with 504."""
    drain_seconds: float = Field(default=60, ge=0)
    """How long a replica that stops may take to finish what it works on: `timeout_seconds` or more,
    or requests that were taken in are cut off."""
    limits: RequestLimits = RequestLimits()
    """What a request may ask for."""
    api_keys: ApiKeys | None = None
    """Who may ask; everybody who reaches the port if absent."""
    log_requests: bool = True
    """Whether each request is a line of the log: who asked, what came of it, how long it took."""
    log_texts: bool = False
    """Whether those lines hold the texts too."""
    tracing: Tracing | None = None
    """Where traces go; nowhere if absent."""

    @property
    def scale(self) -> Autoscale:
        """The least and the greatest number of replicas."""
        if isinstance(self.replicas, Autoscale):
            return self.replicas
        return Autoscale(min=self.replicas, max=self.replicas)

    @model_validator(mode="after")
    def _onnx_runs_on_cores(self) -> Self:
        if self.backend in ("onnx", "onnx-int8") and self.device.gpus:
            raise ValueError(f"backend {self.backend} runs on a CPU, and device has GPUs")
        return self

    @model_validator(mode="after")
    def _stopping_waits_for_requests(self) -> Self:
        if self.drain_seconds < self.timeout_seconds:
            raise ValueError(
                f"drain_seconds is {self.drain_seconds:g}, below timeout_seconds, "
                f"{self.timeout_seconds:g}: a replica that stops would cut requests off. "
                f"Let both be {self.timeout_seconds:g}"
            )
        return self

    @model_validator(mode="after")
    def _texts_are_logged_in_lines(self) -> Self:
        if self.log_texts and not self.log_requests:
            raise ValueError("log_texts needs log_requests: texts stand in the lines of requests")
        return self


MEASURED = {"replicas", "device", "backend", "engine", "max_batch_size", "max_batch_tokens"}
MEASURED |= {"batch_wait_ms", "max_ongoing", "log_requests"}
"""What of the section decides the figures of a comparison."""


class Compare(Section):
    """Teacher and student on the same requests, over the same HTTP path."""

    requests: int = Field(default=200, ge=1)
    """Evaluation rows sent to each at most, in an order fixed by the seed."""
    concurrency: int = Field(default=8, ge=1)
    """Requests in flight in the closed loop, which tells what each can do."""
    rates: list[Annotated[float, Field(gt=0)]] | None = Field(default=None, min_length=1)
    """Requests a second of the open loops, which send whether or not there are answers. If absent,
    a quarter, a half, three quarters and nine tenths of what each model did in the closed loop."""
    seconds_per_rate: float = Field(default=10, gt=0)
    """How long requests arrive at each rate; there are 20 of them at least."""
    objective_ms: float = Field(default=1000, gt=0)
    """Latency that 95% of the requests have to stay under, milliseconds."""
    requests_per_day: int = Field(default=100_000, ge=1)
    """The traffic at which break-even is told in days."""
