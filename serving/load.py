"""The same requests to a served model, as they come or as fast as it can, with what they took."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from core.errors import UseError, WorkError
from core.teacher import Usage
from serving.application import Endpoint
from serving.processor_time import cpu_seconds


@dataclass(frozen=True)
class Request:
    """What is sent to an endpoint."""

    route: str
    """Such as `/v1/classify`."""
    body: dict[str, Any]
    """JSON."""


@dataclass(frozen=True)
class Load:
    """Some requests, and how they arrive."""

    url: str
    """Of the endpoint; the routes come after it."""
    requests: list[Request]
    """In the order in which they are sent."""
    rate: float | None = None
    """Requests a second of a Poisson process that does not wait for answers (an open loop); None
    sends one when another is answered (a closed loop)."""
    concurrency: int | None = None
    """Requests in flight at most: of a closed loop all of the time."""
    objective_ms: float = 1000.0
    """Latency that a good answer stays under."""
    seed: int = 0
    """Of the arrivals."""


@dataclass(frozen=True)
class Reply:
    """What came back for one request."""

    latency_seconds: float
    """0 after an error."""
    answer: dict[str, Any] | None = None
    """The JSON of the answer, or `stream` with the lines of one; None after an error."""
    error: str = ""
    """Status and body of the answer, or what broke the connection."""
    first_seconds: float = 0.0
    """Until the first part of the answer came."""

    @property
    def usage(self) -> Usage | None:
        """Tokens, where the model counts them, in our words or in OpenAI's."""
        told = (self.answer or {}).get("usage")
        if not told:
            return None
        if "tokens_in" in told:
            return Usage(requests=1, **told)
        cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens")
        return Usage(1, told["prompt_tokens"], cached or 0, told.get("completion_tokens") or 0)


@dataclass(frozen=True)
class LoadResult:
    """What came of one load."""

    replies: list[Reply]
    """One per request, in their order."""
    wall_seconds: float
    model_cpu_seconds: float
    """Processor time of the model's replicas, in which HTTP ends, and of its engine."""
    path_cpu_seconds: float
    """Processor time of what all requests pass: the HTTP proxy."""
    rate: float | None = None
    """Requests a second that were sent; None in a closed loop."""
    latency_ms: dict[str, float] | None = None
    """Percentiles as the load generator tells them: `p50`, `p90`, `p95`, `p99`, `mean`; None where
    none was answered, or of several loads together."""
    good_per_second: float = 0.0
    """Answers a second within the latency objective."""

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all that it takes to answer."""
        return self.model_cpu_seconds + self.path_cpu_seconds

    @property
    def answered(self) -> list[Reply]:
        """The replies that are no errors."""
        return [reply for reply in self.replies if not reply.error]


class LoadGenerator:
    """The process that sends requests; it is slow to start, and serves many loads."""

    def __init__(self, log: Path) -> None:
        """Start it.

        Args:
            log: File for what it says.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("a") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.load_process"],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        self._ready = False

    def __enter__(self) -> LoadGenerator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def send(self, endpoint: Endpoint, load: Load) -> LoadResult:
        """Send a load to an endpoint on this machine.

        Raises:
            UseError: vLLM, whose load generator this is, is not installed.
            WorkError: The generator ended.
        """
        if not self._ready:  # while it starts, models can be loaded
            self._line()
            self._ready = True
        own, shared = endpoint.processes(), endpoint.shared_processes()
        own_before, shared_before = cpu_seconds(own), cpu_seconds(shared)
        assert self._process.stdin is not None, "it was asked for"
        self._process.stdin.write(json.dumps(asdict(load)) + "\n")
        self._process.stdin.flush()
        found = self._line()
        result = load_result(found, load)
        return replace(
            result,
            model_cpu_seconds=cpu_seconds(own) - own_before,
            path_cpu_seconds=cpu_seconds(shared) - shared_before,
        )

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "it was asked for"
        line = self._process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        said = self._log.read_text(errors="replace").strip().splitlines()
        last = said[-1] if said else "nothing"
        if "No module named 'vllm" in last:
            raise UseError(
                "the comparison",
                "it needs vLLM, which sends the requests (`vllm bench serve`).",
                "Install the extra: pip install -e '.[cpu]' or '.[gpu]'.",
            )
        raise WorkError(
            "the load generator", f"it ended; it said last: {last}.", f"See {self._log}."
        )


def load_result(found: dict[str, Any], load: Load) -> LoadResult:
    """What the generator tells, without processor times.

    Args:
        found: The result of vLLM's `benchmark`.
        load: That was sent.
    """
    replies = [
        Reply(0.0, error=error) if error else _reply(first, json.loads(text))
        for first, text, error in zip(
            found["ttfts"], found["generated_texts"], found["errors"], strict=True
        )
    ]
    percentiles = {
        name.removesuffix("_e2el_ms"): value
        for name, value in found.items()
        if name.endswith("_e2el_ms") and name.startswith(("p", "mean"))
    }
    return LoadResult(
        replies,
        found["duration"],
        0.0,
        0.0,
        load.rate,
        percentiles if found["completed"] else None,
        found["request_goodput"] or 0.0,
    )


def _reply(first_seconds: float, told: dict[str, Any]) -> Reply:
    return Reply(told["seconds"], told["answer"], first_seconds=first_seconds)
