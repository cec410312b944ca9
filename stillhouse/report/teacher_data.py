"""What the report on teacher data shows, and nothing else; as `data.py` does for a student."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from core.ledger import Entry
from stillhouse.report.arms import ArmTable
from stillhouse.report.assistance import Assistance
from stillhouse.report.data import (
    Ablations,
    Cascade,
    Economics,
    Histogram,
    Paired,
    Price,
    Provenance,
    RejectedRow,
    Samples,
    Score,
    Serving,
    Sweep,
)
from stillhouse.report.harness import Evaluated
from stillhouse.report.intervals import Interval, paired_difference
from stillhouse.report.judges import Complexity, JudgeTable
from stillhouse.report.prompt_measures import MeasuredPrompt
from stillhouse.report.prompt_search import PromptSearch
from stillhouse.report.ratings import People
from stillhouse.report.selection import Choice
from stillhouse.report.side_by_side import SideBySide


@dataclass(frozen=True)
class Lengths:
    """How long a teacher's answers are, in tokens."""

    histogram: Histogram
    middle: int
    """Half of the answers have at most so many."""
    ninety: int
    """Nine of ten have at most so many."""
    longest: int


@dataclass(frozen=True)
class Logits:
    """The likeliest tokens that were kept beside what a teacher wrote."""

    tokens: int
    """Written tokens that have them."""
    alternatives: int
    """Likeliest tokens over all of these."""
    stored_bytes: int
    """Of their columns in the Parquet files, compressed."""
    plain_bytes: int
    """Of the same numbers one after the other: 4 for a token, 6 for an alternative."""

    @property
    def stored_per_token(self) -> float:
        """Bytes on disk for each written token."""
        return self.stored_bytes / self.tokens

    @property
    def plain_per_token(self) -> float:
        """The same before encoding and compression."""
        return self.plain_bytes / self.tokens


@dataclass(frozen=True)
class TeacherWork:
    """What one teacher was asked, and what became of it."""

    name: str
    model: str
    samples: int
    """Answers to each row."""
    asked: int | None
    """Questions: a row and the number of a sample. None where they are not planned yet."""
    answered: int
    rejected: dict[str, int]
    """Questions without an answer that can be used, by reason."""
    finishes: dict[str, int]
    """Answers by how they ended: `stop`, `length` where they were cut, `recorded` where nobody
    knows."""
    used: Entry
    """What the ledger has, added up."""
    device: str
    """Its kind; empty where none is held."""
    place: str
    """Where its answers come from: what an engine holds, or `endpoint`, or `recorded`."""
    devices: float
    """What one engine holds of it; 0 for an endpoint."""
    money: float | None
    lengths: Lengths | None
    """None where nothing is answered, or the tokens are not counted."""
    logits: Logits | None
    """None where the recipe keeps none."""

    @property
    def cut(self) -> int:
        """Answers that ended because they may not be longer."""
        return self.finishes.get("length", 0)

    @property
    def cached(self) -> float | None:
        """Share of the prompt tokens that the prefix cache answered; None where there are none."""
        return self.used.tokens_cached / self.used.tokens_in if self.used.tokens_in else None

    @property
    def seconds(self) -> float:
        """Seconds of one engine at work; for an endpoint, the time in which it was asked."""
        return self.used.useful_seconds / self.devices if self.devices else self.used.wall_seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Written tokens a second of `seconds`; None where nothing has worked."""
        return self.used.tokens_out / self.seconds if self.seconds else None

    @property
    def answers_per_second(self) -> float | None:
        """Answers a second of `seconds`."""
        return self.answered / self.seconds if self.seconds else None

    @property
    def per_thousand(self) -> float | None:
        """Money for a thousand answers."""
        known = self.money is not None and self.answered
        return 1000 * self.money / self.answered if known and self.money is not None else None


@dataclass(frozen=True)
class InputStep:
    """A stage beside the asking, and what became of its rows."""

    stage: str
    kept: int
    rejected: dict[str, int]
    """By reason."""


@dataclass(frozen=True)
class AnswerText:
    """One answer."""

    sample: int
    text: str
    finish: str
    tokens: int | None
    """That were written; None of a recorded answer of which nobody has counted them."""


@dataclass(frozen=True)
class Asked:
    """What one teacher made of a row."""

    teacher: str
    prompt: str | None
    """As it was filled in; None where the row's fields do not fit it."""
    answers: list[AnswerText]
    """By sample."""
    rejections: list[str]
    """Reason and detail of each question without an answer."""


@dataclass(frozen=True)
class AskedRow:
    """An input row with what all teachers made of it."""

    id: str
    fields: dict[str, str]
    asked: list[Asked]


@dataclass(frozen=True)
class Explained:
    """What became of rationales, of a method that draws the rows that have one."""

    drawn: int
    """Rows that were to have one."""
    rows: int
    """That have one."""
    mean_words: float | None
    """Of those that are learnt; None where there are none."""
    words: list[int] | None
    """Of their words: the 5%, 50% and 95% quantiles."""
    most_frequent: str | None
    """The label that most rows have, where all have the same choices."""
    most_frequent_share: float | None
    """Of the rows."""

    @property
    def nearly_always_the_same(self) -> bool:
        """Whether hardly anything can be learnt from the labels."""
        return self.most_frequent_share is not None and self.most_frequent_share > ONE_SIDED


ONE_SIDED = 0.95
"""Share of the rows with one label above which a reader is told."""


@dataclass(frozen=True)
class TeacherRationales:
    """What became of one teacher's rationales, of a method that learns those of several."""

    teacher: str
    answers: int
    """Texts that it wrote."""
    learnt: int
    """Rows that have a rationale of its."""
    mean_words: float | None
    """Of these; None where there are none."""
    rejected: dict[str, int]
    """Texts without a rationale that can be learnt, by reason."""


@dataclass(frozen=True)
class TrainingRows:
    """What became of the answers as training rows of one kind of student."""

    stage: str
    labels: str
    """Whose answers are learnt: `teacher`, or `gold`."""
    answers: int
    """Of teachers, that were read."""
    read: int
    """Of these, answers that could be found in the text."""
    outvoted: int
    """Of these, answers other than most samples of their teacher."""
    rows: int
    """That are learnt from."""
    rejected: dict[str, int]
    """By reason."""
    explained: Explained | None = None
    rationales: list[TeacherRationales] = field(default_factory=list)
    """By teacher, in the recipe's order."""


@dataclass(frozen=True)
class StudentTraining:
    """What the training of one student took."""

    name: str
    model: str
    rows: int
    """Trained on; others are held out to pick the epoch."""
    used: Entry
    money: float | None


@dataclass(frozen=True)
class Judged:
    """How one model answers the evaluation rows."""

    name: str
    role: Literal["teacher", "student"]
    score: Score
    unparsed: int | None
    """Texts without an answer, which count as wrong; None of a model that chooses."""
    unanswered: int
    """Rows that it was asked about in vain, which do not count."""
    beside: str | None = None
    """Of a student: the teacher with the best score."""
    paired: Paired | None = None
    """Both on the rows that both answered."""
    by_choice: Score | None = None
    """How often the choice that it would most likely write is the right one, where that is known.
    """

    @property
    def gap(self) -> tuple[float, Interval] | None:
        """Of a student: its share of right answers less the teacher's, with the 95% interval."""
        pair = self.paired
        if pair is None:
            return None
        interval = paired_difference(pair.both, pair.only_student, pair.only_teacher, pair.neither)
        rows = pair.both + pair.only_student + pair.only_teacher + pair.neither
        if interval is None:
            return None
        return (pair.only_student - pair.only_teacher) / rows, interval


@dataclass(frozen=True)
class ComparedStudent:
    """A student beside a teacher that can be served."""

    name: str
    servings: list[Serving]
    """Both under load over HTTP; empty where they were not compared so."""
    economics: Economics
    cascade: Cascade | None
    """None where a student gives no probabilities."""


@dataclass(frozen=True)
class TeacherDataReport:
    """A whole report."""

    name: str
    """Of the recipe."""
    method: str
    warnings: list[str]
    """Sentences that a reader must know before trusting the figures."""
    currency: str
    """ISO 4217 code."""
    prices: list[Price]
    steps: list[InputStep]
    """Those that rows pass before anybody is asked about them, in the order of the run."""
    teachers: list[TeacherWork]
    """In the recipe's order."""
    total: Entry
    """All that was used for the run as its recipe now is."""
    money: float | None
    """What that cost."""
    rejected: Samples[RejectedRow]
    """Some of every stage, teacher and reason."""
    rows: Samples[AskedRow]
    provenance: Provenance
    later: list[InputStep] = field(default_factory=list)
    """Stages after the asking."""
    training_rows: list[TrainingRows] = field(default_factory=list)
    """Of a method that trains students, in the order of the run."""
    trainings: list[StudentTraining] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    """Teachers first."""
    arms: list[ArmTable] = field(default_factory=list)
    """The tables of all arms, one for each measure."""
    choices: list[Choice] = field(default_factory=list)
    """How teachers are asked, one for each measure."""
    prompts: list[MeasuredPrompt] = field(default_factory=list)
    """Several to one teacher, that with examples last; none where none are compared."""
    prompt_search: PromptSearch | None = None
    """How the prompt of a teacher was searched for, where it was."""
    assistance: Assistance | None = None
    """What a teaching assistant's budget bought, where there is one."""
    judges: list[JudgeTable] = field(default_factory=list)
    harness: list[Evaluated] = field(default_factory=list)
    """What lm-eval found, by student."""
    people: People | None = None
    """What people rated; None where nobody has."""
    complexities: list[Complexity] = field(default_factory=list)
    """The most complex data set first."""
    side_by_side: Samples[SideBySide] = field(default_factory=lambda: Samples(0, []))
    """Evaluation rows that several arms have answered in writing."""
    sweep: Sweep | None = None
    """Where the recipe has one that was begun."""
    compared: list[ComparedStudent] = field(default_factory=list)
    """Students of which there is something to tell beside their teachers."""
    ablations: Ablations | None = None
    """The same of these."""

    @property
    def asked(self) -> int | None:
        """Questions to all teachers together."""
        every = [teacher.asked for teacher in self.teachers]
        known = [asked for asked in every if asked is not None]
        return sum(known) if len(known) == len(every) else None

    @property
    def answered(self) -> int:
        """Answers of all teachers together."""
        return sum(teacher.answered for teacher in self.teachers)

    @property
    def rejected_by_reason(self) -> dict[str, int]:
        """Of all stages and teachers together, most frequent first."""
        counts: dict[str, int] = {}
        every = [step.rejected for step in self.steps]
        every += [teacher.rejected for teacher in self.teachers]
        every += [step.rejected for step in self.later]
        for rejected in every:
            for reason, number in rejected.items():
                counts[reason] = counts.get(reason, 0) + number
        return dict(sorted(counts.items(), key=lambda pair: -pair[1]))
