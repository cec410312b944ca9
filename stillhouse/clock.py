"""Time spans as people read them on a terminal."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """A time span such as `42s`, `3m 05s` or `2h 10m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"
