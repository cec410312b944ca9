"""In which order choices are listed, and scores by place brought back to the choices."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

LETTERS = string.ascii_uppercase


def most_permutations(choices: int) -> int:
    """How many permutations differ: every rotation of the choices and of their reverse."""
    return 2 * choices if choices > 2 else choices  # two choices reversed are two rotated


def permutation(choices: int, number: int) -> list[int]:
    """Which choice stands at each place, in a permutation of which number 0 changes nothing.

    The rotations come first: in as many permutations as there are choices, each choice stands at
    each place once. Then the same reversed, so that each choice also follows those that it stood
    before.
    """
    turns, turn = divmod(number, choices)
    places = [(place + turn) % choices for place in range(choices)]
    return places[::-1] if turns % 2 else places


def mean_by_choice(
    listed: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]
) -> list[float]:
    """Mean score of each choice over P prompts with K places.

    The scores are log-probabilities, and their mean is that of the logs: what a place adds to the
    log-probability of whatever stands there is then the same for all choices once each has stood
    at each place, and a softmax does not see it. A mean of probabilities would keep it.

    Args:
        listed: [P, K], which choice stands at each place.
        scores: [P, K], by place.
    """
    by_choice = np.empty(np.shape(scores))
    np.put_along_axis(by_choice, np.array(listed), np.array(scores), axis=1)
    return list(by_choice.mean(axis=0).tolist())
