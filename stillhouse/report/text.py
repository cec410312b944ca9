"""Rows are anything a model wrote or somebody sent: made fit to be shown, and cut to size."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")
_UNSEEN = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
"""Deletes, C1 controls, and the marks that turn the direction of what follows them around."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that HTML may hold, with what would be invisible or misleading made visible."""
    text = text.replace("\r\n", "\n")
    text = _CONTROL.sub(lambda m: chr(0x2400 + ord(m[0])), text)  # its picture, such as ␀
    text = _UNSEEN.sub(lambda m: f"[U+{ord(m[0]):04X}]", text)
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def shown(text: str, limit: int) -> Markup:
    """Text of a row as HTML, cut with a note; its writing direction stays inside it."""
    kept = clean(text[:limit])
    body = Markup("<bdi>{}</bdi>").format(kept)
    if len(text) <= limit:
        return body
    note = f"… cut here; {len(text):,} characters in all"
    return body + Markup(' <span class="cut">{}</span>').format(note)


def size(*texts: str) -> int:
    """Bytes that texts take on the page."""
    return sum(len(str(escape(text)).encode("utf-8", "replace")) for text in texts)
