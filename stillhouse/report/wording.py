"""Numbers in words: units, sensible digits, `unknown` for None and `never` for infinity."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from stillhouse.report.data import NEVER

UNKNOWN = "unknown"
MINUS = "\N{MINUS SIGN}"
SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£"}
"""Currencies that have a sign everyone knows; others show their code."""


def significant(value: float, digits: int) -> str:
    """A number with at least so many significant digits, all of them before the point."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{decimals}f}".replace("-", MINUS)


def number(value: float | None, digits: int = 3) -> str:
    """A measured number; None, NaN and infinity in words."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return NEVER if math.isinf(value) else significant(value, digits)


def count(value: int | None) -> str:
    """A whole number with thousands apart."""
    return UNKNOWN if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """A share of 1 as a percentage with one decimal."""
    return UNKNOWN if share is None else f"{100 * share:.1f}%"


def between(low: float | None, high: float | None) -> str:
    """An interval of shares as percentages, without the sign."""
    if low is None or high is None:
        return UNKNOWN
    return f"{100 * low:.1f} to {100 * high:.1f}"


def signed_points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    points = round(100 * share, 1)
    return f"{MINUS if points < 0 else '+' if points > 0 else ''}{abs(points):.1f}"


def money(amount: float | None, currency: str, digits: int = 3) -> str:
    """An amount: two decimals from 1 up, so many significant digits below."""
    if amount is None or math.isnan(amount):
        return UNKNOWN
    if math.isinf(amount):
        return NEVER
    if abs(amount) >= 1000:
        figure = f"{abs(amount):,.0f}"
    elif amount == 0 or abs(amount) >= 1:
        figure = f"{abs(amount):.2f}"
    else:
        figure = significant(abs(amount), digits)
    symbol = SYMBOLS.get(currency, f"{currency}\N{NO-BREAK SPACE}")
    return f"{MINUS if amount < 0 else ''}{symbol}{figure}"


def requests(value: float | None) -> str:
    """A number of requests in three significant digits, rounded up so as not to promise more."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return NEVER
    if value <= 0:
        return "0"
    unit = 10.0 ** max(0, math.floor(math.log10(value)) - 2)
    up = math.ceil(round(value / unit, 6)) * unit
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if up >= size:
            return f"{significant(up / size, 3)} {name}"
    return f"{up:,.0f}"


def days(value: float | None) -> str:
    """A time span given in days, in the unit that suits it."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return NEVER
    for size, unit in ((365.25, "years"), (1, "days"), (1 / 24, "hours"), (1 / 1440, "minutes")):
        # A year and a half still reads better in days, an hour and a half in minutes.
        if value >= 2 * size:
            return f"{significant(value / size, 2)} {unit}"
    return f"{significant(value * 86400, 2)} seconds"


def whole(value: float) -> str:
    """A measured amount without decimals, for a table's column."""
    return "<1" if 0 < value < 1 else f"{value:,.0f}"


def money_column(amounts: Iterable[float | None], currency: str) -> list[str]:
    """Amounts that stand below one another: all with the decimals that suit the largest."""
    listed = list(amounts)
    largest = max((abs(a) for a in listed if a is not None and math.isfinite(a)), default=0.0)
    decimals = max(2, 2 - math.floor(math.log10(largest))) if largest > 0 else 2
    least = 10.0**-decimals
    symbol = SYMBOLS.get(currency, f"{currency}\N{NO-BREAK SPACE}")

    def told(amount: float | None) -> str:
        if amount is None or not math.isfinite(amount):
            return UNKNOWN
        if 0 < amount < least / 2:
            return f"<{symbol}{least:.{decimals}f}"
        return f"{symbol}{amount:,.{decimals}f}"

    return [told(amount) for amount in listed]


def date(value: str | None) -> str:
    """An ISO 8601 time for a person; what is no such time stays as it is."""
    if not value:
        return UNKNOWN
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return value
    zone = time.strftime(" %Z") if time.tzinfo else ""
    return f"{time.day} {time:%B %Y, %H:%M}{zone}"


def plural(amount: int, one: str, many: str = "") -> str:
    """A count with its noun."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"
