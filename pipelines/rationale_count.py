"""Rationales on their way into training rows: which are learnt, and what is told of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from core.recipe_rationales import RationaleLimits
from pipelines.answers import Found
from pipelines.rationales import RationaleFilter
from pipelines.row_work import Rejection

QUANTILES = (5, 50, 95)
"""Of the lengths of rationales, in percent."""


@dataclass
class RationaleCount:
    """Says what each row learns in the place of a rationale, and counts."""

    wanted: RationaleLimits
    missing: str | None = None
    """What a row learns that has no rationale; None for nothing."""
    _filter: RationaleFilter = field(init=False)
    _words: Counter[int] = field(default_factory=Counter)
    """How many rationales of so many words are learnt."""
    _labels: Counter[str] = field(default_factory=Counter)
    """How many rows have each label."""
    _drawn: int = 0

    def __post_init__(self) -> None:
        self._filter = RationaleFilter(self.wanted)

    def label(self, text: str) -> None:
        """A row has this label; of tasks in which all rows have the same choices."""
        self._labels[text] += 1

    def learnt(self, said: Found | None) -> tuple[str | None, Rejection | None]:
        """What a row learns that was to have a rationale, and why it is no rationale.

        Args:
            said: The answer that it stands in; None where none could be read.
        """
        self._drawn += 1
        if said is None:
            return self.missing, None
        learnt = self._filter.learnt(said.rationale)
        if isinstance(learnt, str):
            self._words[len(learnt.split())] += 1
            return learnt, None
        return self.missing, Rejection(learnt.reason, learnt.detail, said.rationale)

    def facts(self) -> dict[str, object]:
        """What the report tells of them."""
        explained = self._words.total()
        often = self._labels.most_common(1)
        return {
            "drawn": self._drawn,
            "rows": explained,
            "mean_words": sum(n * of for n, of in self._words.items()) / explained
            if explained
            else None,
            "words": [self._quantile(share) for share in QUANTILES] if explained else None,
            "most_frequent": {"label": often[0][0], "share": often[0][1] / self._labels.total()}
            if often
            else None,
        }

    def _quantile(self, share: int) -> int:
        """The words that so many percent of the rationales do not exceed."""
        left = (self._words.total() - 1) * share // 100
        for words in sorted(self._words):
            left -= self._words[words]
            if left < 0:
                break
        return words
