"""A real HTTP server that answers as an OpenAI-compatible endpoint, and misbehaves when told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

Behaviour = Callable[[int, dict[str, Any]], Any]
"""From a request's number and body to an answer: JSON, a `web.Response` or a coroutine of one."""


@dataclass
class Arrival:
    at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Server:
    url: str = ""
    behave: Behaviour = lambda number, body: said("fine")
    arrivals: list[Arrival] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        at = time.monotonic()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        body = await request.json()
        self.arrivals.append(Arrival(at, request.path, dict(request.headers), body))
        try:
            answer = self.behave(len(self.arrivals), body)
            if asyncio.iscoroutine(answer):
                answer = await answer
        finally:
            self.in_flight -= 1
        if answer is DROP:
            request.transport.abort()
            return web.Response()
        return answer if isinstance(answer, web.Response) else web.json_response(answer)


DROP = object()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server in a thread of its own."""
    server, ready, loop = Server(), threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/{rest:.*}", server.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    yield server
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def said(
    text: str | None, finish: str = "stop", tokens: tuple[int, int] = (10, 3), **message: Any
) -> dict[str, Any]:
    """An answer that reads the same to both APIs."""
    choice = {"text": text, "finish_reason": finish}
    if message or text is None:
        choice["message"] = {"content": text, **message}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return {"choices": [choice], "usage": usage}


def failed(status: int, message: str = "not now", code: str | None = None, **headers: str):
    error = {"error": {"message": message, "type": "some_error", "code": code}}
    return web.json_response(error, status=status, headers=headers)
