"""How fast calls may leave for an endpoint: requests and tokens a minute, and pauses it orders.

`Allowance` is the arithmetic and lasts as long as its owner. `Line` is where calls wait for it, in
the order of their arrival, within one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

BURST_SECONDS = 1.0
"""What may leave at once after a rest, as seconds of the allowed rate: a sixtieth of a minute."""


class Bucket:
    """Fills at a steady rate; what leaves is taken from it."""

    def __init__(self, per_minute: float) -> None:
        self._per_second = per_minute / 60
        # One request must fit, however few are allowed.
        self._capacity = max(1.0, self._per_second * BURST_SECONDS)
        self._level = self._capacity
        self._filled_at = time.monotonic()

    def seconds_until(self, amount: float) -> float:
        """Seconds until an amount may be taken; more than the bucket holds waits for a full one."""
        now = time.monotonic()
        filled = self._level + (now - self._filled_at) * self._per_second
        self._level, self._filled_at = min(self._capacity, filled), now
        return (min(amount, self._capacity) - self._level) / self._per_second

    def take(self, amount: float) -> None:
        """Take an amount, into debt where it is more than there is; a negative one goes back."""
        self._level = min(self._capacity, self._level - amount)


class Allowance:
    """What an endpoint allows: requests a minute, tokens a minute, and nothing in a pause."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute) if tokens_per_minute else None
        self._paused_until = time.monotonic()
        self.held_seconds = 0.0
        """Seconds in which calls stood in line."""

    def seconds_until(self, tokens: float) -> float:
        """Seconds until a request of so many tokens may leave; 0 or less for at once."""
        waits = [self._paused_until - time.monotonic()]
        if self._requests:
            waits.append(self._requests.seconds_until(1))
        if self._tokens:
            waits.append(self._tokens.seconds_until(tokens))
        return max(waits)

    def take(self, tokens: float) -> None:
        """Count a request that leaves."""
        if self._requests:
            self._requests.take(1)
        if self._tokens:
            self._tokens.take(tokens)

    def correct(self, reserved: float, used: float) -> None:
        """Put the tokens that a request really used in place of those it was counted with."""
        if self._tokens:
            self._tokens.take(used - reserved)

    def pause(self, seconds: float) -> None:
        """Let nothing leave for some seconds, or longer where a longer pause runs already."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


class Line:
    """Calls of one event loop that wait for an allowance; the first to come is the first to go."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._head = asyncio.Lock()  # its waiters get it in the order of their arrival
        self._more = asyncio.Event()
        self._closed = asyncio.Event()

    async def admit(self, tokens: float) -> None:
        """Wait until a request of so many tokens may leave, and count it; or the line closes."""
        async with self._head:
            while not self._closed.is_set():
                seconds = self._allowance.seconds_until(tokens)
                if seconds <= 0:
                    self._allowance.take(tokens)
                    return
                began = time.monotonic()
                self._more.clear()
                await _wait(self._more, seconds)
                self._allowance.held_seconds += time.monotonic() - began

    def correct(self, reserved: float, used: float) -> None:
        """Correct what a request was counted with; who waits for tokens looks again."""
        self._allowance.correct(reserved, used)
        self._more.set()

    async def rest(self, seconds: float) -> None:
        """Wait outside the line; ends early when the line closes."""
        await _wait(self._closed, seconds)

    def close(self) -> None:
        """Let everybody through at once: there is nothing to wait for any more."""
        self._closed.set()
        self._more.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
