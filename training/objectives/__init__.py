"""Losses: pure functions on tensors, each tested against numbers worked out by hand."""

from training.objectives.choices import choice_loss, choice_losses, choice_targets
from training.objectives.coefficients import unit_coefficients, weighted_sum
from training.objectives.logits import logit_losses
from training.objectives.sequence import IGNORED, sequence_losses

__all__ = [
    "IGNORED",
    "choice_loss",
    "choice_losses",
    "choice_targets",
    "logit_losses",
    "sequence_losses",
    "unit_coefficients",
    "weighted_sum",
]
