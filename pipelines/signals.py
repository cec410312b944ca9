"""How sure one may be of an answer that nobody has checked: pure functions.

2406.05322 has three signals: the student's self-consistency over several samples, and a teaching
assistant's confidence in the student's answer and in the teacher's. Its formulas are not in what we
have of the paper. Those here are ours. Self-consistency is the share of a majority
(`pipelines.answered_rows.vote`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import rankdata


def p_true(yes: float, no: float) -> float | None:
    """p(yes) / (p(yes) + p(no)), what a model thinks of an answer that it is shown.

    The form of P(True) of 2207.05221; that it is the assistant's confidence is ours.

    Args:
        yes: Natural-log probability that the model goes on with the word for right.
        no: The same of the word for wrong.

    Returns:
        From 0 to 1; None where the two tell nothing: one is no number, or both are impossible.
    """
    if math.isnan(yes) or math.isnan(no) or math.inf in (yes, no) or max(yes, no) == -math.inf:
        return None
    lower = math.exp(-abs(yes - no))  # of the less likely one, beside 1 of the other
    return (1.0 if yes >= no else lower) / (1.0 + lower)


def mean_likelihood(logprobs: Sequence[float]) -> float | None:
    """The exponential of the mean natural-log probability of an answer's tokens, from 0 to 1.

    Returns:
        None where it tells nothing: there is no token, or one of them has no number.
    """
    if not logprobs:
        return None
    mean = math.fsum(logprobs) / len(logprobs) if all(map(_is_logprob, logprobs)) else math.nan
    return None if math.isnan(mean) else min(math.exp(mean), 1.0)


def _is_logprob(value: float) -> bool:
    return not math.isnan(value) and value < math.inf


def doubt(confidences: Iterable[tuple[float, float]]) -> float:
    """What a question is worth to be put to the teacher: sum of w*(1 - c) over the sum of w.

    Ours; with self-consistency c_S, the assistant's confidence q_S in the student's answer, and
    weights beta and 1 - beta it is u = beta*(1 - c_S) + (1 - beta)*(1 - q_S).

    Args:
        confidences: Of each signal its weight, at least 0 and not 0 of all, and its value from 0
            to 1.
    """
    listed = [(weight, value) for weight, value in confidences if weight]
    return math.fsum(w * (1.0 - c) for w, c in listed) / math.fsum(w for w, _ in listed)


def auroc(confidences: Sequence[float], right: Sequence[bool]) -> float | None:
    """The chance that a right answer has a higher confidence than a wrong one; a tie counts half.

    The area under the ROC curve, exactly, by ranks (Mann and Whitney 1947).

    Args:
        confidences: Of each answer; no NaN.
        right: Whether it is right.

    Returns:
        From 0 to 1, 0.5 where the confidence tells nothing; None where all are right, or all wrong.
    """
    hits = np.asarray(right, dtype=bool)
    number, others = int(hits.sum()), int((~hits).sum())
    if not number or not others:
        return None
    ranks = rankdata(np.asarray(confidences, dtype=np.float64))
    above = float(ranks[hits].sum()) - number * (number + 1) / 2
    return above / (number * others)


def precision(weights: Sequence[float], right: Sequence[bool]) -> float | None:
    """The share of labels that are right, by their weights; None where all weights are 0."""
    whole = math.fsum(weights)
    if not whole:
        return None
    return math.fsum(w for w, hit in zip(weights, right, strict=True) if hit) / whole


def lowest(confidences: Sequence[float], share: float) -> set[int]:
    """The places of a share of the confidences, rounded down, the lowest ones; of equals the first.

    Args:
        confidences: No NaN.
        share: From 0 to 1.
    """
    order = sorted(range(len(confidences)), key=confidences.__getitem__)
    # A share such as 0.3 of 10 is 2.9999999999999996 or 3 by its last bit: it is 3.
    return set(order[: math.floor(share * len(order) + 1e-9)])
