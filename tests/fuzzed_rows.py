"""Rows as bad as they come, made from a seed."""

from __future__ import annotations

import json
import random

SMALL = (
    "",
    "   ",
    "\x00\x01\x1b[31m",
    "مرحبا بالعالم",
    "\u202eright to left",
    "\ud800",
    "🧪" * 50,
    "{{ question }} {% raw %}",
    "line\nline\r\nline\u2028line",
    "nul\u0000in the middle",
)
# A row of the last one is taken as input, and only its teacher finds it too long.
LARGE = ("a" * 5_000, "x" * 1_000_000, "y" * 999_000)
VALUES = (
    *(None, True, 0, -1.5, 10**400, [], [1, [2, [3]]], {}, {"a": {"b": None}}, "NaN"),
    *("", " \t\n", "\u00a0\u2003"),
)
LINES = (
    b"",
    b"not json",
    b"\xff\xfe\x00binary\x80",
    b'{"question": "cut sho',
    b'"a text"',
    b"[1, 2, 3]",
    b"null",
    b'{"question": NaN}',
    b'{"question": ' + b"9" * 5_000 + b"}",
    b"[" * 3_000,
    b'{"other": "no question"}',
)


def fuzzed_lines(number: int, seed: int) -> list[bytes]:
    """Lines of a JSONL file, of which about a third are sound."""
    draw = random.Random(seed)
    lines = []
    for row in range(number):
        kind = draw.random()
        if kind < 0.35:
            lines.append(json.dumps({"question": f"Sound row {row}?"}).encode())
        elif kind < 0.6:
            # Large ones are rare, or the file would be gigabytes.
            text = draw.choice(LARGE if draw.random() < 0.02 else SMALL)
            lines.append(json.dumps({"question": f"{text}{row}"}).encode())
        elif kind < 0.8:
            lines.append(json.dumps({"question": draw.choice(VALUES), "row": row}).encode())
        else:
            lines.append(draw.choice(LINES))
    return lines
