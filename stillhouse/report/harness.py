"""What the report shows of EleutherAI's lm-eval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task."""

    task: str
    metric: str
    """As lm-eval names it, with its filter, such as `acc,none`."""
    value: float
    error: float | None
    """Standard error; None where lm-eval tells none."""
    rows: int | None


@dataclass(frozen=True)
class Evaluated:
    """What lm-eval found of one student."""

    student: str
    scores: list[TaskScore]
    base: list[TaskScore]
    """Of the model that it started from; empty where that was not asked for."""
    limit: int | None
    """Rows of each task at most."""
    version: str
    """Of lm-eval."""


def score_in_words(score: TaskScore) -> str:
    """A score with its standard error."""
    error = "" if score.error is None else f" \N{PLUS-MINUS SIGN} {score.error:.4f}"
    return f"{score.value:.4f}{error}"
