"""The loss of a student that chooses."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional


def choice_targets(
    teacher_logits: Tensor,
    has_teacher: Tensor,
    answers: Tensor,
    hard_weight: float,
    temperature: float,
    *,
    choice_mask: Tensor | None = None,
) -> Tensor:
    """What a student's probabilities are pulled towards: lambda * one-hot(y) + (1-lambda) * p_tau.

    p_tau = softmax(teacher_logits / tau), and at tau = 0 its limit, all weight on the first choice
    of the teacher (arXiv 2412.09807; its temperature 0 is the loss without soft labels). That paper
    combines hard and soft labels without telling how, so the mix by lambda is our choice. A row
    with only one of the two labels takes that one whole.

    Args:
        teacher_logits: [B, K] scores of any offset, log-probabilities for one; not looked at where
            `has_teacher` or `choice_mask` is false.
        has_teacher: [B] bool.
        answers: [B] indices of the hard labels, -1 where unknown.
        hard_weight: lambda, from 0 to 1.
        temperature: tau, at least 0.
        choice_mask: [B, K] bool, true where a row has that choice; if absent, everywhere.

    Returns:
        [B, K] probabilities; each row sums to 1 where it has a label, and a choice that a row does
        not have gets none.
    """
    scores = teacher_logits.masked_fill(~has_teacher[:, None], 0.0)
    if choice_mask is not None:
        scores = scores.masked_fill(~choice_mask, -math.inf)
    choices = scores.shape[-1]
    if temperature == 0:
        soft = functional.one_hot(scores.argmax(-1), choices).to(scores.dtype)
    else:
        soft = (scores / temperature).softmax(-1)
    hard = functional.one_hot(answers.clamp(min=0), choices).to(scores.dtype)
    hard_share = scores.new_full(answers.shape, hard_weight)
    hard_share = hard_share.masked_fill(~has_teacher, 1.0).masked_fill(answers < 0, 0.0)
    soft_share = (1.0 - hard_share).masked_fill(~has_teacher, 0.0)
    return hard_share[:, None] * hard + soft_share[:, None] * soft


def choice_losses(
    student_logits: Tensor, targets: Tensor, choice_mask: Tensor | None = None
) -> Tensor:
    """CE(target, softmax(student_logits)) of each row, over the choices that it has.

    With the targets of `choice_targets` this is lambda * CE(y) + (1-lambda) * CE(p_tau), as the
    cross-entropy is linear in its target. There is no tau^2: that factor brings the gradients of
    two softened distributions to one scale, and here only the teacher's is softened.

    Args:
        student_logits: [B, K]; of no effect where `choice_mask` is false.
        targets: [B, K] probabilities.
        choice_mask: [B, K] bool, true where a row has that choice; if absent, everywhere.

    Returns:
        [B], in the type of `targets`.
    """
    logits = student_logits.to(targets.dtype)
    if choice_mask is None:
        return -(targets * logits.log_softmax(-1)).sum(-1)
    logprobs = logits.masked_fill(~choice_mask, -math.inf).log_softmax(-1)
    # 0 * -inf is no number, and so would the gradient be.
    return -(targets * logprobs.masked_fill(~choice_mask, 0.0)).sum(-1)


def choice_loss(
    student_logits: Tensor, targets: Tensor, weights: Tensor, total_weight: Tensor | None = None
) -> Tensor:
    """The weighted mean of `choice_losses` over the rows.

    Args:
        student_logits: [B, K].
        targets: [B, K] probabilities.
        weights: [B], of the rows in the mean.
        total_weight: Scalar to divide by: the weights of the whole batch where these rows are one
            worker's slice of it. The sum of `weights` if absent.

    Returns:
        Scalar.
    """
    losses = choice_losses(student_logits, targets)
    return (weights * losses).sum() / (weights.sum() if total_weight is None else total_weight)
