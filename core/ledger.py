"""The ledger: what every attempt at a stage used, and what that cost.

An attempt rewrites its own file every few seconds, so a kill loses seconds of bookkeeping at most.
Device-seconds are counted from the moment a device is held, and split into start-up, useful and
idle time, because idle accelerators are what people are surprised by on their bill.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from core.identity import content_id
from core.prices import PriceBook
from core.run import Folder


@dataclass(frozen=True)
class Entry:
    """What one attempt at one stage used on one kind of device."""

    stage: str
    attempt: str
    """One process's try; a resumed run has several for a stage."""
    device: str
    """Its kind, as the price book names it; empty for an endpoint, which is paid by the token, and
    for recorded answers, which use neither."""
    model: str = ""
    """The teacher's or student's model."""
    teacher: str = ""
    """Its name in the recipe: two teachers may be of one model."""
    work: str = ""
    """Fingerprint of the work that it was used for: names the stage's folder."""
    requests: int = 0
    tokens_in: int = 0
    """Prompt tokens, cached ones included."""
    tokens_cached: int = 0
    """Prompt tokens that the prefix cache answered."""
    tokens_out: int = 0
    rows: int = 0
    """Rows committed by this attempt."""
    startup_seconds: float = 0.0
    """Device-seconds before the first piece of work could begin."""
    useful_seconds: float = 0.0
    """Device-seconds with at least one piece of work in progress."""
    idle_seconds: float = 0.0
    """Device-seconds held with nothing to do."""
    wall_seconds: float = 0.0
    """Seconds from the attempt's begin to its end."""

    @property
    def tokens(self) -> int:
        """Prompt and generated tokens together."""
        return self.tokens_in + self.tokens_out

    @property
    def device_seconds(self) -> float:
        """All the time that the device was held."""
        return self.startup_seconds + self.useful_seconds + self.idle_seconds


@dataclass(frozen=True)
class Total:
    """Several entries together; money is None where a price is unknown."""

    entry: Entry
    money: float | None


class Ledger:
    """The entries of a run."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def write(self, entry: Entry) -> None:
        """Write or rewrite an attempt's entry for one model on one kind of device."""
        model = content_id(entry.teacher, entry.model)[:8]
        name = f"{entry.stage}.{entry.attempt}.{entry.device}.{model}.json"
        self._folder.write_json(name, asdict(entry))

    def entries(self) -> list[Entry]:
        """All entries, by stage and attempt."""
        return [Entry(**self._folder.read_json(name)) for name in self._folder.names()]


def money(entry: Entry, prices: PriceBook) -> float | None:
    """What an entry cost: device-seconds held by the hour, or tokens where no device is held."""
    if entry.device:
        return prices.device_money(entry.device, entry.device_seconds)
    return prices.token_money(entry.model, entry.tokens_in, entry.tokens_out)


def total(entries: Iterable[Entry], prices: PriceBook) -> Total:
    """Add entries up. One unknown price makes the sum of money unknown, never too small."""
    listed = list(entries)
    sums: dict[str, Any] = {
        f.name: sum(getattr(e, f.name) for e in listed)
        for f in fields(Entry)
        if f.type in ("int", "float")
    }
    costs = [money(e, prices) for e in listed]
    known = [c for c in costs if c is not None]
    return Total(
        replace(Entry(stage="total", attempt="", device=""), **sums),
        math.fsum(known) if len(known) == len(costs) else None,
    )


@dataclass(frozen=True)
class BreakEven:
    """When a student has paid for itself."""

    requests: float | None
    """Served requests after which the saving equals the cost of making; None if unknown,
    infinite if a request costs no less on the student than on the teacher."""
    days: float | None
    """The same at the stated traffic."""


def break_even(
    making: float | None,
    teacher_per_thousand: float | None,
    student_per_thousand: float | None,
    requests_per_day: int,
) -> BreakEven:
    """Requests and days until the student has paid for itself.

    Args:
        making: Money that the student cost to make, teacher's work included.
        teacher_per_thousand: Money for a thousand requests on the teacher.
        student_per_thousand: Money for a thousand requests on the student.
        requests_per_day: The traffic.
    """
    if making is None or teacher_per_thousand is None or student_per_thousand is None:
        return BreakEven(None, None)
    saving = (teacher_per_thousand - student_per_thousand) / 1000
    requests = making / saving if saving > 0 else math.inf
    return BreakEven(requests, requests / requests_per_day)
