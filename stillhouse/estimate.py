"""What the stages that ask teachers will cost, reckoned up from the rows that are answered so far.

A sum over R rows of which n are known is R times their mean. Its 95% interval is that of simple
random sampling without replacement (Cochran, Sampling Techniques, 3rd ed., 1977, section 2.8, with
Student's t for small samples): R·t·s·sqrt((1 - n/R)/n), and so nothing where all rows are known. A
share that rows survive by has Wilson's interval. Independent errors add in squares, and errors of
factors by their relative sizes. What a few answers that are far longer than all others will add
shows in no small sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from core.ledger import Entry
from core.prices import PriceBook
from stillhouse.report.intervals import wilson

REQUESTS, TOKENS_IN, TOKENS_CACHED, TOKENS_OUT = range(4)
"""Columns of a usage array, as in `core.rows.USAGE`."""


@dataclass(frozen=True)
class Amount:
    """An estimated amount with its 95% interval."""

    value: float
    reach: float = 0.0
    """Half the width of the interval; 0 of what is known, infinite where one row says nothing."""
    known: float = 0.0
    """The part of it that is measured already."""

    @property
    def low(self) -> float:
        """Lower end of the interval: not below what is measured already."""
        return max(self.value - self.reach, self.known)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.reach

    @property
    def left(self) -> Amount:
        """What is still to come."""
        return Amount(max(self.value - self.known, 0.0), self.reach)

    def times(self, factor: float) -> Amount:
        """So many of it."""
        return Amount(self.value * factor, self.reach * factor, self.known * factor)


def together(amounts: Iterable[Amount]) -> Amount:
    """The sum of amounts whose errors are independent."""
    listed = list(amounts)
    return Amount(
        math.fsum(amount.value for amount in listed),
        math.hypot(*(amount.reach for amount in listed)),
        math.fsum(amount.known for amount in listed),
    )


def sum_over(rows: Amount, values: np.ndarray) -> Amount:
    """The sum of a quantity over all rows.

    Args:
        rows: How many there are.
        values: [rows that are known, at least one] of the quantity.
    """
    number, mean = len(values), float(values.mean())
    left = _left(number, rows)
    error = 0.0
    if left:
        spread = float(values.std(ddof=1)) if number > 1 else math.inf
        quantile = float(stdtrit(max(number - 1, 1), 0.975))
        error = quantile * spread * math.sqrt(left / number)
    reach = math.hypot(rows.value * error, mean * rows.reach)
    return Amount(rows.value * mean, reach, float(values.sum()))


def survivors(rows: Amount, kept: int, of: int) -> Amount:
    """How many of all rows are kept, where `kept` of `of` were; `of` is at least 1."""
    share, interval = kept / of, wilson(kept, of)
    assert interval is not None, "there are some"
    error = max(share - interval[0], interval[1] - share) * math.sqrt(_left(of, rows))
    reach = math.hypot(rows.value * error, share * rows.reach)
    return Amount(rows.value * share, reach, float(kept))


def _left(known: int, rows: Amount) -> float:
    """The share of all rows that is not known."""
    return max(1 - known / rows.value, 0.0) if rows.value else 0.0


@dataclass(frozen=True)
class Answered:
    """What a teacher has answered of a stage so far."""

    kept: np.ndarray
    """[kept rows, 4]: requests, tokens in, cached and out of each."""
    rejected: int
    """Rows that were answered and are of no use."""
    used: Entry
    """All that the ledger has of it, over all attempts."""

    @property
    def rows(self) -> int:
        """Kept and rejected."""
        return len(self.kept) + self.rejected

    def usage(self) -> tuple[np.ndarray, np.ndarray]:
        """What each row used, and what was used beside the rows.

        Rejected rows do not tell their usage. What the ledger has beyond the kept rows is theirs,
        up to as many requests for each as a kept row has; the rest is calibration, and rows that a
        kill lost.

        Returns:
            rows: float [rows, 4].
            beside: float [4].
        """
        used = self.used
        all_ = np.array([used.requests, used.tokens_in, used.tokens_cached, used.tokens_out])
        beyond = np.maximum(all_ - self.kept.sum(axis=0), 0).astype(float)
        if not self.rejected:
            return self.kept.astype(float), beyond
        theirs = self.rejected * float(self.kept[:, REQUESTS].mean())
        share = min(theirs / beyond[REQUESTS], 1.0) if beyond[REQUESTS] else 0.0
        each = np.tile(beyond * share / self.rejected, (self.rejected, 1))
        return np.concatenate([self.kept, each]), beyond * (1 - share)


@dataclass(frozen=True)
class Line:
    """What one teacher will do for one stage, what is done already included."""

    stage: str
    teacher: str
    rows: Amount
    tokens_in: Amount
    tokens_cached: Amount
    tokens_out: Amount
    tokens: Amount
    device_seconds: Amount | None
    """Without start-up and idle time; None of an endpoint."""
    money: Amount | None
    """None where a price is unknown."""


def line(stage: str, teacher: str, rows: Amount, answered: Answered, prices: PriceBook) -> Line:
    """Reckon up a teacher's rows from those that it has answered, at least one of them kept.

    Device-seconds go by rows, and their spread by each row's share of the tokens.
    """
    usage, beside = answered.usage()
    used = answered.used

    def whole(values: np.ndarray, once: float) -> Amount:
        found = sum_over(rows, values)
        return Amount(found.value + once, found.reach, found.known + once)

    tokens, tokens_beside = _tokens(usage), float(_tokens(beside))
    seconds = money = None
    if used.device:
        per_token = used.useful_seconds / (tokens.sum() + tokens_beside)
        seconds = whole(tokens * per_token, tokens_beside * per_token)
        per_second = prices.device_money(used.device, 1.0)
        money = None if per_second is None else seconds.times(per_second)
    else:
        per_in = prices.token_money(used.model, 1, 0)
        per_out = prices.token_money(used.model, 0, 1)
        if per_in is not None and per_out is not None:
            weights = np.array([0, per_in, 0, per_out])
            money = whole(usage @ weights, float(beside @ weights))
    return Line(
        stage=stage,
        teacher=teacher,
        rows=Amount(rows.value, rows.reach, answered.rows),
        tokens_in=whole(usage[:, TOKENS_IN], beside[TOKENS_IN]),
        tokens_cached=whole(usage[:, TOKENS_CACHED], beside[TOKENS_CACHED]),
        tokens_out=whole(usage[:, TOKENS_OUT], beside[TOKENS_OUT]),
        tokens=whole(tokens, tokens_beside),
        device_seconds=seconds,
        money=money,
    )


def _tokens(usage: np.ndarray) -> np.ndarray:
    found: np.ndarray = usage[..., TOKENS_IN] + usage[..., TOKENS_OUT]
    return found


@dataclass(frozen=True)
class StartUp:
    """What the next start of a teacher's engines takes."""

    teacher: str
    device_seconds: float
    money: float | None


def start_up(teacher: str, entries: Iterable[Entry], prices: PriceBook) -> StartUp | None:
    """The longest start of a teacher's engines that the ledger has; None where it has none."""
    seconds: dict[str, float] = {}
    device = ""
    for entry in entries:
        if entry.teacher == teacher and entry.startup_seconds:
            device = entry.device
            seconds[entry.attempt] = seconds.get(entry.attempt, 0.0) + entry.startup_seconds
    if not seconds:
        return None
    longest = max(seconds.values())
    return StartUp(teacher, longest, prices.device_money(device, longest))


@dataclass(frozen=True)
class Estimate:
    """What the stages that ask teachers will use."""

    lines: list[Line]
    start_ups: list[StartUp]
    """Of the engines that are still needed."""
    unknown: list[str]
    """Stages that ask teachers, of which no row tells yet what they will use."""

    @property
    def tokens(self) -> Amount:
        """Prompt and generated tokens of all lines."""
        return together(line.tokens for line in self.lines)

    @property
    def device_seconds(self) -> Amount:
        """Of all lines, with one start of each engine."""
        starts = [Amount(start.device_seconds) for start in self.start_ups]
        seconds = [line.device_seconds for line in self.lines if line.device_seconds is not None]
        return together([*seconds, *starts])

    @property
    def money(self) -> Amount | None:
        """Of all lines, with one start of each engine; None where a price is unknown."""
        lines = [line.money for line in self.lines]
        starts = [start.money for start in self.start_ups]
        known = [amount for amount in lines if amount is not None]
        known += [Amount(money) for money in starts if money is not None]
        return together(known) if len(known) == len(lines) + len(starts) else None


Fate = Literal["enough", "in doubt", "exceeded"]


def against(limit: float, spent: float, left: Amount) -> Fate:
    """Whether a limit is enough for what is spent and what is still to come."""
    if spent + left.high < limit:
        return "enough"
    return "exceeded" if spent + left.low >= limit else "in doubt"
