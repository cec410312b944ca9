"""Finding the answer in what a model wrote: a pure function of the text."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.recipe_answers import AnswerTask
from core.recipe_prompts import Answer
from pipelines.step_lists import read_steps
from pipelines.tasks import storable

LETTER = re.compile(r"\W*([A-Za-z])(?:$|[^\w\s]|\s*\n)")
"""A letter by itself, with or without brackets, at the begin of an answer: `(b) lake`, `B.`, `b`;
not `A lake`."""

NUMBER = re.compile(
    r"(?<![0-9.])-?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)?(?:\.[0-9]+|(?<=[0-9]))"
)
"""A number with or without thousands commas; the line of a range such as 5-7 is no sign."""

MINUS = "\N{MINUS SIGN}"

QUOTES = "\"'`* \u2018\u2019\u201c\u201d"
"""What may stand around an answer without being part of it, with the marks of Markdown."""


@dataclass(frozen=True)
class Found:
    """An answer."""

    text: str
    """As a student is to write it: of a choice its own words, of a number its digits."""
    key: str
    """Equal for answers that count as the same."""
    choice: int | None = None
    """Its number, from 0; None where there are no choices."""
    rationale: str | None = None
    """Why it is right, where that was written and looked for."""


@dataclass(frozen=True)
class NotFound:
    """Why there is no answer."""

    reason: str
    """`unparsed`, or `outside-choices`."""
    detail: str
    """One sentence for a person."""


class AnswerReader:
    """Reads answers to the questions of a task."""

    def __init__(self, task: AnswerTask, answer: Answer | None = None) -> None:
        """Read as a prompt says.

        Args:
            task: Says it where the prompt does not.
            answer: Of the prompt.
        """
        answer = answer or task.answer or Answer()
        self._answer = answer
        self._choose = task.chooses
        self._pattern = re.compile(answer.pattern) if answer.pattern else None
        self._rationale = re.compile(answer.rationale_pattern) if answer.rationale_pattern else None
        self._map = {self._normal(word): meaning for word, meaning in answer.map.items()}

    def read(self, text: str, choices: Sequence[str]) -> Found | NotFound:
        """The answer in what a teacher wrote.

        Args:
            text: What it wrote.
            choices: The row's; empty where the task has none.
        """
        text = self._cut(text)
        words: str | None = text
        if self._answer.steps is not None:
            steps = read_steps(text, self._answer.steps.key)
            if len(steps) < self._answer.steps.number:
                told = f"{len(steps)} of {self._answer.steps.number} steps were written"
                return NotFound("unparsed", told)
            words = steps[-1]
        if self._pattern is not None:
            last = deque(self._pattern.finditer(text), maxlen=1)
            words = _group(last[0]) if last else None
        if words is None or not words.strip():
            return NotFound("unparsed", "there is no answer in what was written")
        return self._resolve(words, choices, self._why(text))

    def rationale(self, text: str) -> str | None:
        """Why an answer is right, in what a teacher wrote, whatever it takes for the answer.

        Args:
            text: What it wrote.
        """
        return self._why(self._cut(text))

    def read_plain(self, text: str, choices: Sequence[str]) -> Found | NotFound:
        """The answer that a text is, as a student writes it or a file has it."""
        if not text.strip():
            return NotFound("unparsed", "nothing was written")
        return self._resolve(text, choices, None)

    def read_gold(self, value: Any, choices: Sequence[str]) -> Found | None:
        """The right answer that a file has; None where that is none.

        Args:
            value: Text or a number; a whole number may be that of a choice, from 0.
            choices: The row's.
        """
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        found = self.read_plain(storable(str(value)), choices)
        if isinstance(found, Found):
            return found
        if isinstance(value, int) and 0 <= value < len(choices):
            return self._chosen(value, choices, None)
        return None

    def _cut(self, text: str) -> str:
        ends = [place for cut in self._answer.cut_at if (place := text.find(cut)) >= 0]
        return text[: min(ends, default=len(text))]

    def _why(self, text: str) -> str | None:
        first = self._rationale.search(text) if self._rationale else None
        words = _group(first) if first else None
        return words.strip() or None if words else None

    def _resolve(
        self, words: str, choices: Sequence[str], rationale: str | None
    ) -> Found | NotFound:
        words = self._map.get(self._normal(words), words)
        if self._choose:
            number = self._choice(words, choices)
            if number is None:
                shown = words.strip()[:200]
                return NotFound("outside-choices", f"'{shown}' is none of the choices")
            return self._chosen(number, choices, rationale)
        if self._answer.form == "letter":
            letter = LETTER.match(words)
            if letter is None:
                return NotFound("unparsed", "there is no letter by itself in the answer")
            words = letter[1].upper()
        if self._answer.form == "number":
            last = _last_number(words)
            if last is None:
                return NotFound("unparsed", "there is no number in the answer")
            words = last
        return Found(words.strip(), self._normal(words), None, rationale)

    def _choice(self, words: str, choices: Sequence[str]) -> int | None:
        """Which choice is meant; of equal ones the first."""
        wanted = self._normal(words)
        keys = [self._normal(choice) for choice in choices]
        if wanted in keys:
            return keys.index(wanted)
        if self._answer.form == "letter" and (letter := LETTER.match(words)):
            number = ord(letter[1].upper()) - ord("A")
            return number if number < len(choices) else None
        if self._answer.form == "number" and (last := _last_number(words)) is not None:
            numbers = [_last_number(choice) for choice in choices]
            return numbers.index(last) if last in numbers else None
        return None

    def _chosen(self, number: int, choices: Sequence[str], rationale: str | None) -> Found:
        # Two equal choices are one answer, whichever of them somebody means.
        key = self._normal(choices[number])
        return Found(choices[number], key, number, rationale)

    def _normal(self, text: str) -> str:
        joined = " ".join(text.split())
        bare = joined.strip(QUOTES).rstrip(".,;:! ").rstrip(QUOTES) or joined
        return bare.casefold() if self._answer.ignore_case else bare


def _group(match: re.Match[str]) -> str | None:
    """The first group of a match, or all of it where the pattern has none."""
    found: str | None = match[1] if match.re.groups else match[0]
    return found


def _last_number(text: str) -> str | None:
    """The last number of a text in its shortest form, such as 1234.5 for `$1,234.50.`."""
    last = deque(NUMBER.finditer(text.replace(MINUS, "-")), maxlen=1)
    if not last:
        return None
    sign, digits = ("-", last[0][0][1:]) if last[0][0].startswith("-") else ("", last[0][0])
    whole, _, fraction = digits.replace(",", "").partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return number if number == "0" else sign + number
