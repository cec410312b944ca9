"""What a teacher is asked and what it answers, whatever engine is behind it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from core.recipe_section import Device

Exchange = tuple[str, str]
"""What a user said, and what a model replied."""


@dataclass(frozen=True)
class Sampling:
    """How a completion is drawn."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    """Makes one completion repeatable on one engine; costly on a CPU, where each seed has a
    generator of its own over the whole vocabulary."""
    top_logprobs: int = 0
    """Likeliest tokens to keep for every token that is written, for logit distillation."""
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    """The completion is held to this schema by structured decoding."""
    chat: bool = False
    """The prompt is what a user says: the model's chat template goes around it."""
    system: str = ""
    """What stands before the conversation, in a chat, and before the prompt elsewhere."""
    history: tuple[Exchange, ...] = ()
    """Of a conversation: what was said before the prompt."""
    number: int = 0
    """Which of several completions of one prompt is wanted, from 0. It tells recorded answers
    apart; a teacher that draws its answers does not look at it."""

    def parts(self) -> dict[str, Any]:
        """What all completions of a prompt have in common: part of a row's id."""
        own = ("number", "history")
        return {name: value for name, value in asdict(self).items() if name not in own}


def conversation(prompt: str, sampling: Sampling) -> list[dict[str, str]]:
    """A prompt as the last message of a conversation, each with its role and content."""
    said = [{"role": "system", "content": sampling.system}] if sampling.system else []
    for user, reply in sampling.history:
        said.append({"role": "user", "content": user})
        said.append({"role": "assistant", "content": reply})
    return [*said, {"role": "user", "content": prompt}]


@dataclass(frozen=True)
class Usage:
    """Tokens and requests, as counted by the engine; None where nobody has counted."""

    requests: int = 0
    tokens_in: int | None = 0
    tokens_cached: int | None = 0
    tokens_out: int | None = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            _sum(self.tokens_in, other.tokens_in),
            _sum(self.tokens_cached, other.tokens_cached),
            _sum(self.tokens_out, other.tokens_out),
        )

    @property
    def tokens(self) -> int:
        """Prompt and generated tokens together, as far as somebody has counted them."""
        return (self.tokens_in or 0) + (self.tokens_out or 0)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


@dataclass(frozen=True)
class Completion:
    """Text that a teacher wrote, or the reason why it could not."""

    text: str
    usage: Usage
    finish: str
    """`stop`, `length`, `error`, or `recorded` where nobody knows which of the first two."""
    error: str = ""
    reason: str = "too-long"
    """Of an error: the word under which the row is rejected."""
    top: TopTokens | None = None
    """Where `Sampling.top_logprobs` asked for it."""


@dataclass(frozen=True)
class TopTokens:
    """What a teacher thought of writing at each place, for T tokens and k alternatives.

    Four bytes for each token and six for each alternative, before compression; the share of the
    probability that the k leave out is what the logprobs of a place do not sum to.
    """

    token_ids: np.ndarray
    """[T] int32: what it wrote."""
    top_ids: np.ndarray
    """[T, k] int32: the likeliest tokens, in falling order."""
    top_logprobs: np.ndarray
    """[T, k] float16: their natural-log probabilities over the whole vocabulary, before any
    temperature."""


@dataclass(frozen=True)
class SequenceScore:
    """What a teacher thinks of a given text after a prompt."""

    logprobs: list[float]
    """Natural-log probability of each token of the text; empty after an error."""
    usage: Usage = field(default_factory=Usage)
    error: str = ""
    reason: str = "too-long"
    """Of an error: the word under which the row is rejected."""


@dataclass(frozen=True)
class LabelScores:
    """Natural-log probabilities of single-token labels as the next token."""

    logprobs: list[float]
    """One per label, over the whole vocabulary; empty after an error."""
    usage: Usage = field(default_factory=Usage)
    error: str = ""
    reason: str = "too-long"
    """Of an error: the word under which the row is rejected."""


class EngineKilled(Exception):  # noqa: N818, a question's fate, and no fault of the program
    """A question that ends whatever engine it is put to."""


class Engine(Protocol):
    """A teacher that runs. Questions are coroutines, to keep many in flight."""

    teacher: str
    """Its name in the recipe."""
    model: str
    """Its model, as the recipe names it."""
    accounted: dict[str, float]
    """Statistics that stand in the ledger already; what came since belongs to the next stage."""

    @property
    def desk(self) -> Any:
        """Where workers all over the cluster note how far they are: an actor.

        None where the driver alone asks this teacher.
        """
        ...

    @property
    def rows_at_once(self) -> int:
        """Rows that it works on at once."""
        ...

    @property
    def device(self) -> Device | None:
        """What one replica holds; None where tokens are paid, or nothing."""
        ...

    @property
    def replicas(self) -> int:
        """Engines that run side by side now."""
        ...

    def demand(self, rows: int, seconds_left: float) -> None:
        """Say how many rows are left, and in how many seconds they would be answered."""
        ...

    async def complete(self, prompt: str, sampling: Sampling) -> Completion:
        """Write on from a prompt."""
        ...

    async def score_labels(self, prompt: str, labels: list[str]) -> LabelScores:
        """Score single-token labels as the next token after a prompt, in one prefill.

        Raises:
            UseError: A label is not exactly one token in this place.
        """
        ...

    async def score_text(self, prompt: str, text: str) -> SequenceScore:
        """Score a text of any length after a prompt, in one prefill.

        Raises:
            UseError: The engine cannot.
        """
        ...

    def statistics(self) -> dict[str, float]:
        """Seconds of `startup`, `useful` and `idle` time, and `Usage`, since the start."""
        ...

    async def disconnect(self) -> None:
        """Close what belongs to the running event loop, when the loop is about to end."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...

    def forget_prompts(self) -> None:
        """Empty the prefix caches, so that what was asked before is not known to a measurement."""
        ...

    def processes(self) -> list[int]:
        """Ids of the engine's processes, where they run on this machine."""
        ...
