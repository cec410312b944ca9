"""Training rows of students that write, as prompts and what is to be written behind them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.recipe_students import LogitObjective, SequenceObjective
from core.student_reading import prefixed
from training.objectives import logit_losses, sequence_losses, unit_coefficients
from training.units import Losses, Units

ANSWER = "answer"
"""The task of answering; others are rationales, each named by its teacher."""

NOT_LEARNT = -100
"""Label of a place where nothing is to be written, as in transformers."""


@dataclass(frozen=True)
class Text:
    """What a row asks for in one task."""

    task: str
    messages: list[dict[str, str]]
    target: str


def texts_of(row: dict[str, Any], objective: SequenceObjective | LogitObjective) -> Iterator[Text]:
    """The tasks of a row: its answer, and the rationales that it has (2403.15886, 2402.04616).

    Args:
        row: Of `core.rows.TEXT_TRAINING`.
        objective: Says which of them count.
    """
    if isinstance(objective, LogitObjective):
        yield Text(ANSWER, row["messages"], row["answer"])
        return
    if objective.answer_weight:
        messages = prefixed(row["messages"], objective.answer_prefix)
        yield Text(ANSWER, messages, row["answer"])
    for rationale in row["rationales"] or []:
        if objective.rationale_weights.get(rationale["teacher"]):
            prefix = objective.prefix_of(rationale["teacher"])
            messages = prefixed(row["messages"], prefix)
            yield Text(rationale["teacher"], messages, rationale["text"])


@dataclass(frozen=True)
class LikelyTokens:
    """What a teacher thought at each place of its own answer."""

    ids: Tensor
    """[T, k] int32."""
    logprobs: Tensor
    """[T, k] float16, natural logs over the whole vocabulary."""


@dataclass(frozen=True)
class TextUnits(Units):
    """Prompts and targets: each is a unit, and its loss the sum over the target's tokens."""

    prompts: list[Tensor]
    """[length] int32 each."""
    targets: list[Tensor]
    """[length] int32 each, what ends a text included."""
    likely: list[LikelyTokens] | None
    """By unit, where the student learns from them."""
    row_weights: Tensor
    """[U] float32, of the unit's row."""
    task_weights: Tensor
    """[U] float32."""
    task: Tensor
    """[U] int64: the number of the unit's task."""
    pad_token: int
    objective: SequenceObjective | LogitObjective

    def coefficients(self, units: Sequence[int]) -> Tensor:
        """The loss is the sum over tasks of weight times weighted mean over the tokens."""
        chosen = list(units)
        return unit_coefficients(
            row_weights=self.row_weights[chosen],
            task_weights=self.task_weights[chosen],
            tokens=torch.tensor([len(self.targets[unit]) for unit in chosen]),
            task_of_unit=self.task[chosen],
        )

    def losses(self, model: nn.Module, units: Sequence[int], device: torch.device) -> Losses:
        """Cross-entropies of the targets, or divergences from what the teacher thought."""
        logits, labels = self.read(model, units, device)
        if isinstance(self.objective, LogitObjective):
            losses = self._divergences(logits, labels, units)
        else:
            losses = sequence_losses(logits, labels)
        if torch.is_grad_enabled():
            return Losses(losses, None)
        right = (logits.argmax(-1) == labels) | (labels == NOT_LEARNT)
        return Losses(losses, right.all(-1))

    @abstractmethod
    def read(
        self, model: nn.Module, units: Sequence[int], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """What a model thinks at the places where something is to be written.

        Returns:
            Logits [U, T, V], and the tokens to be written [U, T], `NOT_LEARNT` where there are
            none.
        """

    def _divergences(self, logits: Tensor, labels: Tensor, units: Sequence[int]) -> Tensor:
        assert self.likely is not None, "encoded for this objective"
        assert isinstance(self.objective, LogitObjective)
        learnt = labels != NOT_LEARNT
        width = self.likely[0].ids.shape[1]
        ids = torch.zeros((*labels.shape, width), dtype=torch.int64, device=labels.device)
        logprobs = torch.zeros(ids.shape, dtype=torch.float32, device=labels.device)
        ids[:] = torch.arange(width, device=labels.device)  # different ones, in places left out
        ids[learnt] = torch.cat([self.likely[u].ids for u in units]).long().to(labels.device)
        found = torch.cat([self.likely[u].logprobs for u in units])
        logprobs[learnt] = found.float().to(labels.device)
        return logit_losses(
            logits,
            labels.clamp(min=0),
            ids,
            logprobs,
            learnt,
            divergence=self.objective.divergence,
            beta=self.objective.beta,
            hard_weight=self.objective.hard_weight,
        )
