"""ASGI middleware that times a server from its first request to its last answer.

`GET /lap` tells the seconds and the answers since the last lap, and begins another.
"""

from __future__ import annotations

import json
import time
from typing import Any


class Stopwatch:
    """Stands around the server's own application; every POST counts."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._first = self._last = 0.0
        self._answers = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or tell the lap."""
        if scope["type"] == "http" and scope["path"] == "/lap":
            await self._tell(send)
            return
        counts = scope["type"] == "http" and scope["method"] == "POST"
        if counts:
            self._first = self._first or time.monotonic()
        await self._app(scope, receive, send)
        if counts:
            self._last = time.monotonic()
            self._answers += 1

    async def _tell(self, send: Any) -> None:
        lap = {"seconds": self._last - self._first, "answers": self._answers}
        self._first = self._last = 0.0
        self._answers = 0
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(lap).encode()})
