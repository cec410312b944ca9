"""Which of the rationales that teachers wrote are learnt: pure functions of the text.

The least length is that of 2403.15886; the other measures are ours.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b

from core.recipe_rationales import Rationales
from pipelines.answers import NotFound

SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)]*$")
"""The end of a word that ends a sentence."""


def trimmed(text: str, words: int) -> str:
    """The whole sentences within the first so many words, or these words where there is none.

    Args:
        text: Of any length; what is short enough stays as it was written.
        words: To keep at most.
    """
    listed = text.split()
    if len(listed) <= words:
        return text
    ends = [n for n, word in enumerate(listed[:words], start=1) if SENTENCE_END.search(word)]
    return " ".join(listed[: ends[-1] if ends else words])


@dataclass
class RationaleFilter:
    """Says of each rationale what is learnt of it."""

    wanted: Rationales
    _seen: Counter[bytes] = field(default_factory=Counter)
    """How often each text has come, 16 bytes of it."""

    def learnt(self, text: str | None) -> str | NotFound:
        """The rationale as it is learnt, or why there is none.

        Args:
            text: What stands in the place of a rationale; None where nothing does.
        """
        if text is None or not text.strip():
            return NotFound("no-rationale", "there is no rationale in what was written")
        text = text.strip()
        if self.wanted.trim_words is not None:
            text = trimmed(text, self.wanted.trim_words)
        words = len(text.split())
        least, most = self.wanted.min_words, self.wanted.max_words
        if words < least:
            told = f"the rationale has {words} words, and {least} are wanted"
            return NotFound("short-rationale", told)
        if most is not None and words > most:
            told = f"the rationale has {words} words, and at most {most} are wanted"
            return NotFound("long-rationale", told)
        if self.wanted.most_repeats is not None:
            digest = blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
            self._seen[digest] += 1
            if self._seen[digest] > self.wanted.most_repeats:
                told = f"{self.wanted.most_repeats} rows before have this very rationale"
                return NotFound("repeated-rationale", told)
        return text
