"""What the report shows of judges: ratings with their spread, biases, how complex rows are."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rated:
    """How one arm was rated."""

    arm: str
    mean: float
    """Over the prompts, of the mean over all replies."""
    spread: float | None
    """Standard deviation over the prompts of these means; None of one prompt."""
    by_prompt: dict[str, float]
    """The mean over all replies, by the prompt's name."""
    replies: int
    low: float | None
    """Lower end of the 95% interval of the mean, over conversations."""
    high: float | None


@dataclass(frozen=True)
class Preferred:
    """One pair of arms, in both orders."""

    one: str
    other: str
    wins: int
    """Rows on which both orders say `one`."""
    losses: int
    """Rows on which both orders say `other`."""
    undecided: int
    """Rows on which the orders disagree, or that are tied."""


@dataclass(frozen=True)
class Bias:
    """Of a judge: what should not matter to it, and does."""

    ratings: int
    length: float | None
    """Spearman's correlation of a rating with the words of the reply, each less the mean over the
    arms on the same turn; None where nothing differs."""
    length_overall: float | None
    """The same without regard to turns."""
    pairs: int = 0
    """Pairs that were judged in both orders."""
    consistent: float | None = None
    """Share of them on which both orders come to one verdict; None where there are none."""
    first: float | None = None
    """Share of the decided verdicts that went to who stood first; 0.5 is no bias."""
    longer: float | None = None
    """Share of the decided verdicts that went to who wrote more."""


@dataclass(frozen=True)
class JudgeTable:
    """One judge on one data set."""

    judge: str
    model: str
    """Who judges."""
    dataset: str
    rated: list[Rated]
    bias: Bias
    unparsed: int
    """What it wrote that is no rating and no verdict."""
    preferred: list[Preferred] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        """Names of the judge's prompts by which anything was rated."""
        return list(dict.fromkeys(name for one in self.rated for name in one.by_prompt))


@dataclass(frozen=True)
class Complexity:
    """How complex the rows of one data set are, and how far students stay behind on it."""

    judge: str
    dataset: str
    rows: int
    mean: float
    median: float
    by_criterion: dict[str, float]
    unparsed: int
    gaps: dict[str, float]
    """By distilled student: accuracy of the first teacher, asked plainly where it was, less the
    student's."""
