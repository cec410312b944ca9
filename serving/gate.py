"""What every request passes before its route: keys, limits, the clock, the log and the metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from ray.serve import metrics

from core.recipe_serving import Serve
from serving.keys import KeyRing
from serving.page import ROUTE as PAGE

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json", PAGE})
"""Paths that need no key: probes, the description of the API, and the page, which asks for one."""

RECORD = "stillhouse.record"
"""Key of a request's scope under which its record is."""

LATENCY_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000]
"""Bounds of the histogram of latencies."""

logger = logging.getLogger("ray.serve")


@dataclass
class Record:
    """What is known of one request when it is answered."""

    caller: str = ""
    """Name of the API key; empty where none is needed."""
    model: str = ""
    inputs: int = 0
    """Texts or questions."""
    answered_by: Counter[str] = field(default_factory=Counter)
    """Inputs by who answered them; empty where that is the model itself."""
    more: dict[str, Any] = field(default_factory=dict)
    """Texts, where the recipe wants them in the log."""


def record_of(scope: Scope) -> Record:
    """The record of a request, for its route to fill in."""
    found: Record = scope[RECORD]
    return found


class Refusal(Exception):  # noqa: N818, an answer, and no fault of the program
    """A request that is answered without its route."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


class Gate:
    """The outermost layer of an ASGI application."""

    def __init__(self, app: Any, settings: Serve) -> None:
        self._app = app
        self._settings = settings
        self._keys = KeyRing(settings.api_keys) if settings.api_keys else None
        tags = ("model", "route", "status", "caller")
        self._requests = metrics.Counter(
            "stillhouse_requests", description="Requests by what came of them.", tag_keys=tags
        )
        self._inputs = metrics.Counter(
            "stillhouse_inputs",
            description="Texts and questions in answered requests.",
            tag_keys=("model", "answered_by"),
        )
        self._latency = metrics.Histogram(
            "stillhouse_request_latency_ms",
            description="From a request's arrival at the replica to its answer.",
            boundaries=[float(bound) for bound in LATENCY_MS],
            tag_keys=("model", "route"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; what is no HTTP passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        record = scope[RECORD] = Record()
        answer = _Answer(send)
        try:
            self._admit(scope, record)
            # A caller who sends a body slowly holds a place among the requests, too.
            async with asyncio.timeout(self._settings.timeout_seconds):
                body = await self._body(scope, receive)
                await self._app(scope, _replay(body, receive), answer)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except TimeoutError:
            seconds = self._settings.timeout_seconds
            await answer.refuse(Refusal(504, f"There was no answer within {seconds:g} s."))
        except Exception:
            answer.failed()  # what stands around this gate answers with 500
            raise
        finally:
            self._tell(scope, record, answer.status, time.perf_counter() - began)

    def _admit(self, scope: Scope, record: Record) -> None:
        """Let those in who have a key and have not used it too often.

        Raises:
            Refusal: They have not, or they have.
        """
        if self._keys is None or _path(scope) in OPEN:
            return
        key = _key(scope)
        caller = self._keys.caller(key) if key else None
        if caller is None:
            raise Refusal(
                401,
                "This needs an API key, as 'Authorization: Bearer KEY'."
                if not key
                else "This API key is not known, or was revoked.",
                {"www-authenticate": "Bearer"},
            )
        record.caller = caller.key.name
        wait = self._keys.wait(caller)
        if wait > 0:
            raise Refusal(
                429,
                f"This key may ask {caller.key.requests_per_minute} times a minute.",
                {"retry-after": str(math.ceil(wait))},
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            Refusal: It is too long; no more of it is read than that takes.
        """
        most = self._settings.limits.body_bytes
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if told.isdigit() and int(told) > most:
            raise _too_long(most)
        parts: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b"".join(parts)
            part = message.get("body", b"")
            length += len(part)
            if length > most:
                raise _too_long(most)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _tell(self, scope: Scope, record: Record, status: int, seconds: float) -> None:
        """Count the request, and write its line."""
        # Only routes that there are: callers must not be able to make metrics without end.
        found = scope.get("route")
        route = found.path if found is not None else ""
        self._requests.inc(
            tags={
                "model": record.model,
                "route": route,
                "status": str(status),
                "caller": record.caller,
            }
        )
        if record.model:
            self._latency.observe(seconds * 1000, tags={"model": record.model, "route": route})
        for name, number in record.answered_by.items():
            self._inputs.inc(number, tags={"model": record.model, "answered_by": name})
        if self._settings.log_requests and route not in OPEN:
            line = {
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 2),
                "caller": record.caller,
                "model": record.model,
                "inputs": record.inputs,
                **record.more,
            }
            logger.info("request", extra={"ray_serve_extra_fields": line})


class _Answer:
    """An ASGI `send` that knows what was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 499
        """499 where the caller went before there was an answer."""

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    def failed(self) -> None:
        """Note an answer with 500, where nothing was sent yet."""
        if self.status == 499:
            self.status = 500

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a problem, where nothing was sent yet."""
        if self.status != 499:
            return
        content = json.dumps({"detail": refusal.detail}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(content))}
        await self(
            {
                "type": "http.response.start",
                "status": refusal.status,
                "headers": [
                    (name.encode(), value.encode())
                    for name, value in (headers | refusal.headers).items()
                ],
            }
        )
        await self({"type": "http.response.body", "body": content})


def _replay(body: bytes, receive: Receive) -> Receive:
    """An ASGI `receive` that gives a body which was read already, and then what still comes."""
    given = False

    async def replayed() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _too_long(most: int) -> Refusal:
    return Refusal(413, f"The body has more than {most} bytes.")


def _path(scope: Scope) -> str:
    """The path below the application's own prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _key(scope: Scope) -> str:
    """The API key of a request; empty where there is none."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1")
