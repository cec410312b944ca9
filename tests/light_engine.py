"""An engine without a model, for what an engine pool does around its engines.

Real engines take half a minute to start; a pool that loses a dozen of them in a test cannot wait
for that. tests/fault puts the same questions to real ones.
"""

from __future__ import annotations

import asyncio
import os
import time

from core.teacher import Completion, Usage


class LightEngine:
    """Answers after a moment; dies of `POISON`, and dies on its first call where `fragile` says."""

    def __init__(self, model, arguments, seed, log, **_) -> None:
        self._began = time.monotonic()
        self._seconds = arguments.get("seconds", 0.01)
        self._at_once = asyncio.Semaphore(arguments.get("max_num_seqs", 8))
        self._fragile = arguments.get("fragile", False)
        self._in_flight = 0
        self._requests = 0

    async def complete(self, prompt, sampling):
        self._in_flight += 1
        try:
            async with self._at_once:
                await asyncio.sleep(self._seconds)
                if "POISON" in prompt or self._fragile:
                    os._exit(1)
                self._requests += 1
                return Completion(prompt.upper(), Usage(1, 2, 0, 3), "stop")
        finally:
            self._in_flight -= 1

    async def statistics(self):
        held = time.monotonic() - self._began
        return {
            "process": os.getpid(),
            "startup": 0.0,
            "useful": held,
            "idle": 0.0,
            "requests": self._requests,
            "tokens_in": 2 * self._requests,
            "tokens_cached": 0,
            "tokens_out": 3 * self._requests,
        }

    async def process(self):
        return os.getpid()

    async def rests(self):
        return self._in_flight == 0
