"""Whether an item's choices can be chosen from, for items that bring their own."""

from __future__ import annotations

from collections.abc import Sequence


def choice_fault(choices: Sequence[str], answer: int | None) -> tuple[str, str] | None:
    """The first fault of a set of choices, as a fixed word and a sentence; None without one.

    Two choices are the same where they differ only in case, blanks or a final full stop. Other
    punctuation counts: -5 and 5, C and C++ are different answers.

    Args:
        choices: The answers to choose from.
        answer: Index of the right one, or None where nobody knows it.
    """
    forms = [" ".join(choice.casefold().split()).removesuffix(".") for choice in choices]
    if len(forms) < 2:
        return "too-few-choices", f"{len(forms)} choices, at least 2 wanted"
    if "" in forms:
        return "missing-choice", f"choice {forms.index('') + 1} is empty"
    for place, form in enumerate(forms):
        if form in forms[:place]:
            detail = f"choices {forms.index(form) + 1} and {place + 1} are the same"
            return "duplicate-choices", detail
    if answer is not None and not 0 <= answer < len(forms):
        return "answer-outside", f"the answer is number {answer + 1} of {len(forms)} choices"
    return None
