"""What the report shows, and nothing else: plain values that a run's manifests are read into.

None means unknown and is shown as that word, never as 0. Money is in the price book's currency.
Choices are indices into `ReportData.choices`. `to_json` writes the same as the report's twin for
machines, `report.json`.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

from core.ledger import Entry
from stillhouse.report.intervals import wilson

Row = TypeVar("Row")

NEVER = "never"
"""What an infinite number of requests or days is called."""


@dataclass(frozen=True)
class Score:
    """Right answers among evaluation rows."""

    correct: int
    total: int
    low: float | None
    """Lower end of the 95% interval, 0 to 1; None where nothing was counted."""
    high: float | None
    """Upper end of it."""

    @classmethod
    def of(cls, correct: int, total: int) -> Score:
        """A score with its Wilson interval."""
        low, high = wilson(correct, total) or (None, None)
        return cls(correct, total, low, high)

    @property
    def share(self) -> float | None:
        """Accuracy, 0 to 1; None where nothing was counted."""
        return self.correct / self.total if self.total else None


@dataclass(frozen=True)
class Quality:
    """How one model, in one setting, answers the evaluation rows."""

    name: str
    """As it is shown, such as `Teacher, calibrated`; no two are the same."""
    role: Literal["baseline", "teacher", "student"]
    score: Score
    """Over all evaluation rows."""
    by_difficulty: dict[str, Score] = field(default_factory=dict)
    """By the evaluation file's own words, such as plain and hard; empty where it has none."""
    by_choice: list[Score] = field(default_factory=list)
    """By the right answer, in the order of the choices; empty where it was not counted."""
    by_subject: dict[str, Score] = field(default_factory=dict)
    """By the rows' subjects; empty where they have fewer than two."""

    @property
    def subject_mean(self) -> float | None:
        """Mean of the accuracies by subject, 0 to 1, each subject with the same weight."""
        shares = [score.share for score in self.by_subject.values() if score.share is not None]
        return sum(shares) / len(shares) if shares else None


@dataclass(frozen=True)
class Paired:
    """Student and teacher on the same evaluation rows."""

    both: int
    """Rows that both got right."""
    only_student: int
    only_teacher: int
    neither: int


@dataclass(frozen=True)
class Comparison:
    """Which two of the qualities the first screen sets side by side."""

    student: str
    """Name of a quality."""
    teacher: str
    """Name of the teacher's best measured quality."""
    paired: Paired | None = None
    """None where they did not answer the same rows; the interval is then wider."""


@dataclass(frozen=True)
class Price:
    """A figure of the price book that this run's money rests on."""

    what: str
    """Such as `cpu-core, hour`."""
    money: float
    source: str
    """Where it comes from, in the price book's words."""


@dataclass(frozen=True)
class Economics:
    """What the student cost, and what it saves."""

    currency: str
    """ISO 4217 code."""
    making: float | None
    """Money that the student cost to make: the teacher's work, the training, idle time."""
    teacher_per_thousand: float | None
    """Money for a thousand requests on the teacher."""
    student_per_thousand: float | None
    """Money for a thousand requests on the student."""
    requests_per_day: int
    """The traffic at which break-even is told in days."""
    break_even_requests: float | None
    """Infinite where the student saves nothing; from `core.ledger.break_even`, as is the next."""
    break_even_days: float | None
    prices: list[Price] = field(default_factory=list)


@dataclass(frozen=True)
class RatePoint:
    """Requests that arrive at a given rate."""

    rate: float
    """In a second."""
    answered_per_second: float
    requests: int
    """How many arrived."""
    failed: int
    p50_ms: float | None
    """Of the answered ones; None where there are none."""
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Serving:
    """One model under the comparison's load over HTTP."""

    name: str
    role: Literal["teacher", "student"]
    requests: int
    """Answered requests that the figures are of."""
    failed: int
    concurrency: int
    """Requests in flight."""
    device: str
    """Its kind, as the price book names it."""
    devices: float
    """How many were held."""
    p50_ms: float | None
    """Latency that half of the requests stayed under, milliseconds at the client."""
    p90_ms: float | None
    p99_ms: float | None
    requests_per_second: float | None
    cpu_seconds_per_thousand: float | None
    """CPU time that a thousand requests took, of the HTTP path and of the model's processes."""
    path_cpu_seconds_per_thousand: float | None
    """The part of it that the proxy takes, which both models share."""
    device_seconds_per_thousand: float | None = None
    """What is priced: on a CPU the above, on a GPU what it gives at the latency objective."""
    money_per_thousand: float | None = None
    accuracy: float | None = None
    """Of the answers that came over HTTP."""
    tokens_in_per_request: float | None = None
    """None where the model does not count, as is the next."""
    tokens_cached_per_request: float | None = None
    objective_ms: float | None = None
    """Latency that 95% of the requests have to stay under."""
    sustained_per_second: float | None = None
    """The highest rate at which they did."""
    rates: list[RatePoint] = field(default_factory=list)
    """In the order of the rates."""


@dataclass(frozen=True)
class CascadePoint:
    """What a student gives that defers at a threshold, on the rows that it is judged on."""

    threshold: float
    """A student that is surer than this answers itself."""
    deferred: float
    """Share of the rows that its teacher answers, 0 to 1."""
    accuracy: float
    """Of both together."""
    money_per_thousand: float | None
    """Money for a thousand requests."""


@dataclass(frozen=True)
class Cascade:
    """A student that asks its teacher where it is not sure enough."""

    student: str
    teacher: str
    """Its name in predictions, with the setting that is its best."""
    within: float
    """How far below the teacher it may be on the rows that the threshold was chosen on."""
    threshold: float
    chosen_rows: int
    """Rows that it was chosen on."""
    rows: int
    """Rows that it is judged on: others."""
    deferred: float
    """Of these, the share that the teacher answers."""
    accuracy: float
    money_per_thousand: float | None
    student_accuracy: float
    """Of the student alone, on the rows that it is judged on."""
    teacher_accuracy: float
    curve: list[CascadePoint]
    """From all-student to all-teacher."""


@dataclass(frozen=True)
class StageCost:
    """What all attempts at a stage used on one kind of device."""

    entry: Entry
    """The attempts' entries added up, with the stage's name."""
    attempts: int
    money: float | None
    making: bool
    """Whether it counts as making the student; measuring it beside its teacher does not."""


@dataclass(frozen=True)
class Way:
    """Synthetic rows by the way in which they were generated."""

    name: str
    """Such as decomposed or json."""
    asked: int
    """Rows that the teacher was asked for."""
    generated: int
    """Rows that could be read from its answers."""
    duplicates: int
    """Of these, rows that say the same, or nearly so, as an earlier one."""
    scored: int
    kept: int
    """Rows that the student was given."""


@dataclass(frozen=True)
class Rejection:
    """Rows that could not be used."""

    stage: str
    reason: str
    way: str
    """Name of the way that they were generated by; empty for other rows."""
    count: int


@dataclass(frozen=True)
class Balance:
    """How often a choice is the answer."""

    choice: int
    intended: int
    """Generated rows that the teacher was to write for it."""
    teacher: int
    """Scored rows for which it is the teacher's first choice."""
    final: int
    """Kept rows, the examples included, whose hard label or highest soft label it is."""


@dataclass(frozen=True)
class Histogram:
    """Counts of values between edges."""

    edges: list[float]
    """One more than the counts, ascending."""
    counts: list[int]

    @classmethod
    def of(
        cls, values: Iterable[float], low: float = 0.0, high: float = 1.0, bins: int = 20
    ) -> Histogram:
        """Count values into equal bins; those beyond an end go into the last bin there."""
        edges = [low + (high - low) * i / bins for i in range(bins + 1)]
        counts = [0] * bins
        for value in values:
            counts[min(max(bisect_right(edges, value) - 1, 0), bins - 1)] += 1
        return cls(edges, counts)


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows."""

    number: int
    """From 1."""
    train_loss: float | None
    """Mean over the epoch's steps."""
    validation_loss: float | None
    """On rows held out of the training rows, after the epoch."""


@dataclass(frozen=True)
class Training:
    """How a student learned."""

    student: str
    epochs: list[Epoch]
    chosen: int | None
    """Number of the epoch whose weights were kept."""


@dataclass(frozen=True)
class SweepTrial:
    """A choice of values, and what it came to."""

    number: int
    """From 1."""
    values: list[Any]
    """In the order of the sweep's keys."""
    state: Literal["waits", "runs", "finished", "stopped", "failed"]
    """`stopped`: early, by the scheduler; `failed`: with an error."""
    epochs: int
    score: float | None
    """The metric of its best epoch, on held-out rows; None before the first."""
    device_seconds: float
    """That its training took, start-up and idle time included."""
    money: float | None


@dataclass(frozen=True)
class Sweep:
    """The trials that the recipe's values were found by."""

    student: str
    metric: str
    rising: bool
    """Whether more of the metric is better."""
    keys: list[str]
    """Of the recipe, dotted."""
    logarithmic: list[str]
    """Those of which powers of ten matter."""
    notes: list[str]
    """What a reader must know before comparing the trials."""
    trials: list[SweepTrial]
    best: int | None
    """Number of the trial whose values the run has; None while the sweep is not done."""


@dataclass(frozen=True)
class Gap:
    """One variant's share of right answers less another's: same evaluation rows, same seeds."""

    mean: float
    low: float
    """Lower end of the 95% interval over rows and seeds."""
    high: float
    spread: float | None
    """Standard deviation over seeds; None of a single one."""


@dataclass(frozen=True)
class Variant:
    """A variant of the recipe, and what it came to."""

    name: str
    changes: dict[str, Any]
    """By dotted key; none of the recipe as it is."""
    by_seed: list[float | None]
    """Share of right answers, in the order of the seeds; None of a cell that is not done."""
    mean: float | None
    """Of those that are done."""
    spread: float | None
    """Their standard deviation; None of fewer than two."""
    gap: Gap | None
    """Less the recipe as it is; None of itself, and where no seed is done of both."""
    other: float | None = None
    """The mean by the measure that decides nothing: of a student judged by choice how often what it
    wrote is right, and the other way round; None where it is not known of all that are done."""


Verdict = Literal["seen", "not seen", "cannot tell at this size"]


@dataclass(frozen=True)
class JudgedClaim:
    """What is said of two variants, beside what was measured."""

    says: str
    better: str
    than: str
    by: float
    """Percentage points by which the one is said to be better at least."""
    gap: Gap | None
    """The one less the other; of a share that is kept, what is kept beyond it."""
    verdict: Verdict | None
    """`seen`: the whole interval lies above `by`; `not seen`: none of it does; None while cells
    are left."""
    keeps: float | None = None
    """The share that the one is said to keep at least of the gain of `of` over the other."""
    of: str | None = None
    gain: Gap | None = None
    """The whole of that gain."""

    @property
    def kept(self) -> float | None:
        """The share of the gain that is kept; None where there is none."""
        if self.keeps is None or self.gap is None or self.gain is None or self.gain.mean <= 0:
            return None
        return self.keeps + self.gap.mean / self.gain.mean


@dataclass(frozen=True)
class Ablations:
    """Variants of the recipe beside the recipe as it is."""

    student: str
    judged_by: Literal["answer", "choice"]
    """Whether what it wrote is right, or the choice that it would most likely write."""
    seeds: list[int]
    rows: int | None
    """Evaluation rows; None where cells have answered different ones."""
    variants: list[Variant]
    """The recipe as it is comes first."""
    claims: list[JudgedClaim]
    notes: list[str]
    """What a reader must know before comparing the variants."""
    device_seconds: float = 0.0
    """That they took beside the run itself, start-up and idle time included."""
    money: float | None = None
    """What that cost; None where a price is unknown."""

    @property
    def has_other(self) -> bool:
        """Whether there is a measure beside the one that decides."""
        return any(variant.other is not None for variant in self.variants)

    @property
    def cells(self) -> int:
        """How many there are."""
        return len(self.seeds) * len(self.variants)

    @property
    def done(self) -> int:
        """How many of them are done."""
        return sum(share is not None for variant in self.variants for share in variant.by_seed)


@dataclass(frozen=True)
class Confusion:
    """Right answers against given answers."""

    model: str
    counts: list[list[int]]
    """A row for each choice as the right answer, with a column for each as the given one."""


@dataclass(frozen=True)
class Samples(Generic[Row]):
    """Some rows of many."""

    total: int
    """How many there are in the run."""
    rows: list[Row]


@dataclass(frozen=True)
class TrainingRow:
    """A row that the student learned from."""

    id: str
    question: str
    answer: int | None
    """Hard label."""
    probabilities: list[float] | None
    """Soft label as the student saw it, by choice; None where it had only the hard one."""
    source: str
    """Such as example, decomposed or json."""
    choices: list[str] | None = None
    """The row's own; None where they are the task's."""


@dataclass(frozen=True)
class RejectedRow:
    """A row that a stage could not use; as in `core.rows.REJECTED`."""

    id: str
    stage: str
    reason: str
    detail: str
    original: str
    teacher: str | None = None
    """Who was asked; None where nobody was."""


@dataclass(frozen=True)
class Answer:
    """What teacher and student answered to an evaluation row."""

    id: str
    question: str
    answer: int
    """The label that a person gave."""
    teacher: int | None
    teacher_probabilities: list[float] | None
    student: int
    student_probabilities: list[float] | None
    difficulty: str | None
    choices: list[str] | None = None
    """The row's own; None where they are the task's."""


@dataclass(frozen=True)
class DomainScore:
    """How a model answers rows of another domain."""

    domain: str
    """Their name in the recipe."""
    model: str
    """As a quality's name."""
    score: Score


@dataclass(frozen=True)
class StageFact:
    """A finished stage."""

    name: str
    fingerprint: str
    rows: int
    rejected: int
    committed: str
    """UTC time, ISO 8601."""


@dataclass(frozen=True)
class Model:
    """A model that took part."""

    name: str
    """Its name in the recipe."""
    role: Literal["teacher", "student"]
    model: str
    """Where it came from, such as embedded://smollm2-135m-instruct."""
    revision: str | None
    """Of its files, as the stages that used it found them; None before the first of them is done.
    """
    licence: str | None


@dataclass(frozen=True)
class Provenance:
    """Where everything came from."""

    run: str
    """Location of the run's folder."""
    recipe: str
    """The resolved recipe, YAML."""
    stages: list[StageFact]
    models: list[Model]
    packages: dict[str, str]
    """Versions by name."""
    machine: dict[str, str]
    """Such as `cores: 2`, in words for a person."""
    started: str | None
    """UTC time of the run's begin, ISO 8601."""
    created: str
    """UTC time of the report."""


@dataclass(frozen=True)
class ReportData:
    """A whole report."""

    name: str
    """Of the recipe."""
    method: str
    instruction: str
    """The task in the words that the teacher reads."""
    choices: list[str]
    """Of every row; empty where rows have their own."""
    warnings: list[str]
    """Sentences that a reader must know before trusting the figures."""
    qualities: list[Quality]
    """In the order in which they are shown."""
    comparison: Comparison | None
    """None until both teacher and student have answered the evaluation rows."""
    confusion: Confusion | None
    """Of the comparison's student."""
    economics: Economics
    servings: list[Serving]
    stages: list[StageCost]
    """In the order of the run."""
    ways: list[Way]
    rejections: list[Rejection]
    balance: list[Balance]
    """In the order of the choices; empty where nothing was generated."""
    confidence: Histogram | None
    """Of the teacher's probability for its first choice, over the scored rows."""
    trainings: list[Training]
    kept: Samples[TrainingRow]
    rejected: Samples[RejectedRow]
    disagreements: Samples[Answer]
    """Evaluation rows to which teacher and student gave different answers."""
    mistakes: Samples[Answer]
    """Evaluation rows that the student got wrong."""
    provenance: Provenance
    sweep: Sweep | None = None
    """Where the recipe has one that was begun."""
    ablations: Ablations | None = None
    """The same of these."""
    cascade: Cascade | None = None
    """None until both have answered the evaluation rows."""
    domains: list[DomainScore] = field(default_factory=list)
    """Rows of other domains; empty where the recipe has none."""

    def quality(self, name: str) -> Quality | None:
        """The quality of that name."""
        return next((q for q in self.qualities if q.name == name), None)

    @property
    def student(self) -> Quality | None:
        """The comparison's student."""
        return self.quality(self.comparison.student) if self.comparison else None

    @property
    def teacher(self) -> Quality | None:
        """The comparison's teacher."""
        return self.quality(self.comparison.teacher) if self.comparison else None


def to_json(data: Any) -> str:
    """A report's dataclass for machines: `dataclasses.asdict`, with infinity as "never"."""
    return json.dumps(_json_value(asdict(data)), indent=2, allow_nan=False) + "\n"


def _json_value(value: Any) -> Any:
    """Replace the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return NEVER if value > 0 else None
    return value
