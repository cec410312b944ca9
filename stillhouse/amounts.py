"""Numbers as people read them on a terminal."""

from __future__ import annotations


def amount(money: float | None, currency: str) -> str:
    """Money with two digits that count, such as `0.0042 USD`; `cost unknown` for None."""
    if money is None:
        return "cost unknown"
    digits = 2
    while digits < 6 and 0 < money < 10 ** (1 - digits):
        digits += 1
    return f"{money:,.{digits}f} {currency}"


def count(number: int) -> str:
    """A whole number with thousands set apart."""
    return f"{number:,}"


def clock(seconds: float) -> str:
    """A time span such as `42s`, `3m 05s` or `2h 10m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"
