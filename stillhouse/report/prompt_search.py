"""A search for a prompt, as the report tells of it: instructions, rounds, and the winner."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stillhouse.report.data import Paired, Score
from stillhouse.report.intervals import Interval, paired_difference

MOST_SHOWN = 20
"""Instructions that the page lists."""


@dataclass(frozen=True)
class Instruction:
    """An instruction that was scored."""

    text: str
    round: int
    """In which it was proposed; 0 of those that the search began with."""
    scoring: float
    """Share of right answers to the scoring rows."""
    validation: float | None
    """The same on the validation rows, of the best few."""


@dataclass(frozen=True)
class Round:
    """A round of proposals."""

    round: int
    proposed: int
    valid: int
    faults: dict[str, int]
    """Proposals that could not be tried, by reason."""
    best: int
    """The best score so far, from 0 to 100."""


@dataclass(frozen=True)
class PromptSearch:
    """The whole search."""

    teacher: str
    """Whose prompt it is."""
    optimizer: str
    instructions: list[Instruction]
    rounds: list[Round]
    winner: int
    """Number of the instruction that is used."""
    first: int
    """Number of the best of those that the search began with."""
    rows: dict[str, int]
    """By use: how many there are."""
    held_out: Score
    """The winner, on rows that nothing was chosen by."""
    held_out_first: Score
    """The best of those to begin with, on the same rows."""
    paired: Paired
    """The winner as the student, and the best of those to begin with as the teacher."""
    queries: dict[str, int]
    """Answers that were paid for, by use."""

    @property
    def best(self) -> list[Instruction]:
        """The instructions with the best scores, best first; of equals the earlier."""
        return sorted(self.instructions, key=lambda one: -one.scoring)[:MOST_SHOWN]

    @property
    def proposed(self) -> int:
        """Proposals in all rounds."""
        return sum(one.proposed for one in self.rounds)

    @property
    def valid(self) -> int:
        """Of these, those that could be tried."""
        return sum(one.valid for one in self.rounds)

    @property
    def empty_rounds(self) -> int:
        """Rounds without a valid proposal."""
        return sum(not one.valid for one in self.rounds)

    @property
    def faults(self) -> dict[str, int]:
        """Proposals that could not be tried in any round, most frequent reason first."""
        found: Counter[str] = Counter()
        for one in self.rounds:
            found.update(one.faults)
        return dict(found.most_common())

    @property
    def gain(self) -> tuple[float, Interval] | None:
        """The winner less the best of those to begin with, with its 95% interval.

        None where they are one.
        """
        if self.winner == self.first:
            return None
        pair = self.paired
        rows = pair.both + pair.only_student + pair.only_teacher + pair.neither
        interval = paired_difference(pair.both, pair.only_student, pair.only_teacher, pair.neither)
        if interval is None:
            return None
        return (pair.only_student - pair.only_teacher) / rows, interval
