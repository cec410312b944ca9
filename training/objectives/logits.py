"""The loss of a student that learns its teacher's probabilities of the likeliest tokens."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]

LEAST_REST = 1e-6
"""The least probability that a teacher is taken to give to the tokens which are not among its
likeliest. float32 cannot tell less from the difference of 1 and the others' sum, which rounding to
float16 can even put above 1; and at 0 the reverse KL would have no bound."""


def logit_losses(
    student_logits: Tensor,
    token_ids: Tensor,
    top_ids: Tensor,
    top_logprobs: Tensor,
    mask: Tensor,
    *,
    divergence: Divergence,
    beta: float,
    hard_weight: float,
) -> Tensor:
    """hard_weight * CE + (1 - hard_weight) * D, summed over the places of each sequence.

    Of its teacher's probabilities a student knows those of the k likeliest tokens, and that all
    others together have the rest. So D compares two distributions over k + 1 buckets: the k tokens,
    and whatever else there is. For any divergence here that is at most the one over the whole
    vocabulary, and equal to it where k is V - 1 or V. Dropping the rest and normalising the k would
    teach that nothing else is ever said.

    D is, of the teacher's p and the student's q, KL(p||q), KL(q||p), or the generalised
    Jensen-Shannon divergence beta * KL(p||m) + (1-beta) * KL(q||m) with m = beta*p + (1-beta)*q
    (2306.13649, equation 1). There is no temperature: how much the rest has at another one does not
    follow from how much it has at this one.

    Nothing is shifted here: `student_logits[:, i]` has to be what predicts `token_ids[:, i]`. Only
    the logits of places that count are turned into float32, and one such copy, [places, V], is kept
    for the backward pass.

    Args:
        student_logits: [B, L, V], of any floating type.
        token_ids: [B, L] int64, what the teacher wrote; of no effect where `mask` is false.
        top_ids: [B, L, k] int64, the teacher's likeliest tokens, each once at a place.
        top_logprobs: [B, L, k] their natural-log probabilities over the teacher's whole vocabulary,
            of any floating type.
        mask: [B, L] bool, true at the places where something is learnt.
        divergence: D.
        beta: Of `jsd`, between 0 and 1: the teacher's share in the mixture.
        hard_weight: From 0 to 1: of the cross-entropy of what the teacher wrote.

    Returns:
        [B], float32 at least; 0 for a sequence in which nothing is learnt.
    """
    dtype = torch.promote_types(student_logits.dtype, torch.float32)
    sequences, places = mask.nonzero(as_tuple=True)
    tops = top_ids[sequences, places]
    # Taken out of the logits by index: `gather` would keep a copy of them for the backward pass.
    wanted = torch.cat([tops, token_ids[sequences, places, None]], dim=-1)
    known = student_logits[sequences[:, None], places[:, None], wanted].to(dtype)
    # In place, on what indexing has copied. 1 - sum(q) would be rounding errors where the student
    # is sure; the logits of the rest are exact.
    others = student_logits[sequences, places].to(dtype).scatter_(-1, tops, -math.inf)
    buckets = known[:, :-1]
    if others.shape[-1] > tops.shape[-1]:
        buckets = torch.cat([buckets, others.logsumexp(-1, keepdim=True)], dim=-1)
    teacher = _teacher_buckets(top_logprobs[sequences, places].to(dtype), buckets.shape[-1])
    soft = _divergence(teacher, buckets.log_softmax(-1), divergence, beta)
    hard = buckets.logsumexp(-1) - known[:, -1]
    losses = hard_weight * hard + (1.0 - hard_weight) * soft
    return losses.new_zeros(mask.shape).masked_scatter(mask, losses).sum(-1)


def _teacher_buckets(top_logprobs: Tensor, buckets: int) -> Tensor:
    """The teacher's log-probabilities [N, k] and, if there is such a bucket, the rest's: one sum.

    They are divided by what they sum to: 1, but for the rounding of float16 and the least rest.
    """
    # An impossible token has the least number that float16 holds: 0 * -inf would be no number.
    logprobs = top_logprobs.clamp(min=torch.finfo(torch.float16).min)
    if buckets > logprobs.shape[-1]:
        rest = (1.0 - logprobs.exp().sum(-1, keepdim=True)).clamp(min=LEAST_REST)
        logprobs = torch.cat([logprobs, rest.log()], dim=-1)
    return logprobs.log_softmax(-1)


def _divergence(teacher: Tensor, student: Tensor, divergence: Divergence, beta: float) -> Tensor:
    """Of log-probabilities [N, buckets]: [N]."""
    if divergence == "forward_kl":
        return _kl(teacher, student)
    if divergence == "reverse_kl":
        return _kl(student, teacher)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * _kl(teacher, mixture) + (1.0 - beta) * _kl(student, mixture)


def _kl(one: Tensor, other: Tensor) -> Tensor:
    """KL(one || other) of finite log-probabilities, over the last dimension."""
    return (one.exp() * (one - other)).sum(-1)
