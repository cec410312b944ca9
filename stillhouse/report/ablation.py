"""An ablation in words, for the page and for the terminal."""

from __future__ import annotations

from typing import Any

from stillhouse.report import wording
from stillhouse.report.data import Gap, JudgedClaim
from stillhouse.report.sweep import value_in_words

NOT_YET = "cells are left"
"""In the place of a verdict."""

OTHER = {"choice": "as written", "answer": "by choice"}
"""By what decides: the head of the column with the other measure."""


def gap_in_words(gap: Gap | None) -> str:
    """A difference in percentage points, with its sign."""
    return "" if gap is None else wording.signed_points(gap.mean)


def interval_in_words(gap: Gap | None) -> str:
    """Its 95% interval."""
    if gap is None:
        return ""
    return f"{wording.signed_points(gap.low)} to {wording.signed_points(gap.high)}"


def spread_in_words(spread: float | None) -> str:
    """A standard deviation over seeds in percentage points, without a sign."""
    return "" if spread is None else f"{100 * spread:.1f}"


def changes_in_words(changes: dict[str, Any]) -> str:
    """What a variant changes, as it would be set by hand."""
    return ", ".join(f"{key}={value_in_words(value)}" for key, value in changes.items())


def claim_in_words(claim: JudgedClaim) -> str:
    """What a claim compares, in the names of the variants."""
    if claim.keeps is None or claim.of is None:
        by = f" by {wording.number(claim.by, 2)} points" if claim.by else ""
        return f"{claim.better} better than {claim.than}{by}"
    share = wording.percent(claim.keeps)
    said = f"{claim.better} beyond {share} of the gain of {claim.of} over {claim.than}"
    if claim.gain is None:
        return said
    kept = "" if claim.kept is None else f", of which {wording.percent(claim.kept)} is kept"
    return f"{said}: {gap_in_words(claim.gain)} points ({interval_in_words(claim.gain)}){kept}"
