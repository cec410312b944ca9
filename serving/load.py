"""The same requests to a served model, a fixed number in flight, with what they took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from core.teacher import Usage
from serving.application import Endpoint
from serving.processor_time import cpu_seconds

TIMEOUT_SECONDS = 120.0
"""After which a request counts as an error."""


@dataclass(frozen=True)
class Reply:
    """What came back for one text."""

    latency_seconds: float
    label: str = ""
    probabilities: dict[str, float] | None = None
    """By choice; None after an error."""
    usage: Usage | None = None
    """Tokens, where the model's engine counts them."""
    error: str = ""
    """Status and body of the answer, or what broke the connection."""


@dataclass(frozen=True)
class LoadResult:
    """One run of requests against one model."""

    replies: list[Reply]
    """One per text, in their order."""
    wall_seconds: float
    model_cpu_seconds: float
    """Processor time of the model's replicas, in which HTTP ends, and of its engine."""
    path_cpu_seconds: float
    """Processor time of what all requests pass: the HTTP proxy."""

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all that it takes to answer."""
        return self.model_cpu_seconds + self.path_cpu_seconds


def send(
    endpoint: Endpoint,
    model: str,
    texts: Sequence[str],
    *,
    concurrency: int,
    warm_up: Sequence[str],
) -> LoadResult:
    """Ask a model about texts, one text a request, as fast as `concurrency` in flight allow.

    Args:
        endpoint: Where the model alone is served, on this machine.
        model: Its name there.
        texts: In the order in which they are sent.
        concurrency: Requests in flight; a new one is sent when one is answered.
        warm_up: Texts that are sent before and not counted; others than `texts`, or the teacher's
            prefix cache would know their prompts. What all prompts begin with is cached by them.
    """
    return asyncio.run(_send(endpoint, model, texts, concurrency, warm_up))


async def _send(
    endpoint: Endpoint,
    model: str,
    texts: Sequence[str],
    concurrency: int,
    warm_up: Sequence[str],
) -> LoadResult:
    own = endpoint.processes()
    shared = endpoint.shared_processes()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        ask = _Asker(session, f"{endpoint.url}/v1/classify", model)
        await _closed_loop(ask, warm_up, concurrency)
        own_before, shared_before = cpu_seconds(own), cpu_seconds(shared)
        began = time.perf_counter()
        replies = await _closed_loop(ask, texts, concurrency)
        wall = time.perf_counter() - began
    return LoadResult(
        replies, wall, cpu_seconds(own) - own_before, cpu_seconds(shared) - shared_before
    )


async def _closed_loop(ask: _Asker, texts: Sequence[str], concurrency: int) -> list[Reply]:
    replies: dict[int, Reply] = {}
    waiting = enumerate(texts)

    async def work() -> None:
        for number, text in waiting:  # shared: each worker takes the next text
            replies[number] = await ask(text)

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return [replies[number] for number in range(len(texts))]


class _Asker:
    """Sends one text and times the answer."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: str) -> None:
        self._session = session
        self._url = url
        self._model = model

    async def __call__(self, text: str) -> Reply:
        began = time.perf_counter()
        body = {"model": self._model, "input": text}
        try:
            async with self._session.post(self._url, json=body) as response:
                content = await response.read()
                latency = time.perf_counter() - began
                if response.status != 200:
                    error = f"{response.status} {content.decode(errors='replace')}"
                    return Reply(latency, error=error)
                return _reply(latency, await response.json())
        except (aiohttp.ClientError, TimeoutError) as error:
            return Reply(time.perf_counter() - began, error=f"{type(error).__name__}: {error}")


def _reply(latency: float, answer: dict[str, Any]) -> Reply:
    result = answer["results"][0]
    usage = answer.get("usage")
    return Reply(
        latency,
        result["label"],
        result["probabilities"],
        Usage(requests=1, **usage) if usage else None,
    )
