"""Prompts to one teacher beside each other, as the report tells of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeasuredPrompt:
    """What a prompt cost and gave."""

    prompt: str
    rows: int
    """That prompts are compared on."""
    answers: int
    labelled: int
    """Answers in which a label was found."""
    judged: int
    """Answers to rows with a right one."""
    right: int
    explained: int
    """Answers with label and rationale."""
    mean_words: float | None
    """Of a rationale."""
    tokens_in: int | None
    tokens_cached: int | None
    tokens_out: int | None
    """Of all these answers; None where nobody has counted."""
    thousand: float | None
    """Money for a thousand answers by the model's price of tokens; None where it has none."""

    @property
    def tokens(self) -> float | None:
        """Tokens of an answer, in and out, on average."""
        if self.tokens_in is None or self.tokens_out is None or not self.answers:
            return None
        return (self.tokens_in + self.tokens_out) / self.answers


def share_of(one: MeasuredPrompt, other: MeasuredPrompt) -> float | None:
    """What one prompt takes of another's money, or where no price is known of its tokens."""
    if one.thousand is not None and other.thousand:
        return one.thousand / other.thousand
    if one.tokens is None or not other.tokens:
        return None
    return one.tokens / other.tokens
