"""Rows that copy from the evaluation set: training on them would make its figures worthless."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipelines.duplicates import normal_form


class EvaluationNgrams:
    """The word n-grams of the evaluation rows, to hold generated rows against.

    Words are those of the normal form, so case and punctuation do not hide a copy. A text of fewer
    than n words is one n-gram as a whole: it matches only a row that says just the same, since a
    few words within a longer row prove nothing. A script without blanks between words has long
    "words"; there mostly copies of whole clauses are found.

    Memory grows with the evaluation set alone, by about 200 bytes a word.
    """

    def __init__(self, rows: Iterable[tuple[str, str]], length: int) -> None:
        """Take in the evaluation rows.

        Args:
            rows: Id and text of each.
            length: Words of an n-gram.
        """
        self._length = length
        self._rows: dict[str, list[str]] = {}
        for row_id, text in rows:
            for ngram in set(_ngrams(text, length)):
                self._rows.setdefault(ngram, []).append(row_id)

    def shared(self, text: str) -> dict[str, str]:
        """The evaluation rows that share an n-gram with a text, each with the first words shared.

        Empty where the text is not contaminated.
        """
        found: dict[str, str] = {}
        for ngram in _ngrams(text, self._length):
            for row_id in self._rows.get(ngram, ()):
                found.setdefault(row_id, ngram)
        return found


def _ngrams(text: str, length: int) -> Iterator[str]:
    words = normal_form(text).split()
    if words:
        for place in range(max(1, len(words) - length + 1)):
            yield " ".join(words[place : place + length])
