"""Which of the rationales that teachers wrote are learnt: pure functions of the text.

The least length is that of 2403.15886; the other measures are ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from core.recipe_rationales import RationaleLimits
from pipelines.answers import NotFound

SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)]*$")
"""The end of a word that ends a sentence."""

WORD = re.compile(r"[^\W_]+")

_EMPTY = """
    a about all also am an and answer are as at be because been being both but by can choice
    chosen correct could did do does each for from had has have he hence here his how i if in into
    is it its just may might more most must no nor not of on one only option or other our out over
    own question reason right same she should since so some such than that the their them then
    there therefore these they this those through thus to too under up very was we were what when
    where which who why will with would you your
"""

EMPTY_WORDS = frozenset(_EMPTY.split())
"""Words that say nothing of a matter: articles, pronouns and the like, and those of phrases such as
`so the right answer is`."""


def new_words(text: str, known: Iterable[str]) -> set[str]:
    """The different words of a text that say something, and stand in none of some other texts.

    Single letters do not count: they are names of choices. Numbers do.

    Args:
        text: Of any length.
        known: The other texts.
    """
    said = {word for one in known for word in WORD.findall(one.casefold())}
    words = set(WORD.findall(text.casefold())) - said - EMPTY_WORDS
    return {word for word in words if len(word) > 1 or word.isdigit()}


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

    wanted: RationaleLimits
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
