"""The loss of a student that writes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of a place where nothing is learnt, such as the prompt and the padding."""


def sequence_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of the tokens' cross-entropies, of each sequence.

    Nothing is shifted here: `logits[:, i]` has to be what predicts `labels[:, i]`. Of a causal
    model those are `logits[:, :-1]` and `input_ids[:, 1:]`; a seq2seq model's are aligned.

    Only the logits of places that count are turned into float32, and one such copy, [places, V],
    is kept for the backward pass.

    Args:
        logits: [B, L, V], of any floating type.
        labels: [B, L] int64 token ids, `IGNORED` where nothing is learnt.

    Returns:
        [B], float32 at least; 0 for a sequence in which nothing is learnt.
    """
    learnt = labels != IGNORED
    rows = logits[learnt]
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    losses = functional.cross_entropy(rows, labels[learnt], reduction="none")
    return losses.new_zeros(labels.shape).masked_scatter(learnt, losses).sum(-1)
