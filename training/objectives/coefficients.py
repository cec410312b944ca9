"""How the losses of a batch's units are summed into one."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_sum(losses: Tensor, coefficients: Tensor) -> Tensor:
    """Sum of coefficient * loss over some units [U]: their part of the batch's loss, a scalar.

    The parts of all micro-batches and workers add up to the loss of the batch.
    """
    return (coefficients.to(losses.dtype) * losses).sum()


def unit_coefficients(
    row_weights: Tensor, task_weights: Tensor, tokens: Tensor, task_of_unit: Tensor
) -> Tensor:
    """By what to multiply the loss of each unit, the sum of its token losses.

    The loss of a batch is the sum over its tasks of w_task * (mean loss of the task's tokens), as
    in TinyLLM (2402.04616) and, with one teacher, in step-by-step distillation (2403.15886). A
    token counts in the mean by the weight of its row: with confidences as weights the mean is
    sum(w_i * NLL_i) / sum(w_i). Answers and each teacher's rationales are a task each. A row
    without a rationale has no unit for it, so that the mean is over the rows that have one.

    Where a unit is one decision, as a choice is, it has one token.

    Args:
        row_weights: [U] of the row that each unit comes from, above 0.
        task_weights: [U] of the task that each unit belongs to.
        tokens: [U] how many tokens of each unit are learnt, above 0.
        task_of_unit: [U] int64, numbers of the tasks from 0.

    Returns:
        [U] coefficients in the type of `row_weights`. They hold for the whole batch that they were
        computed from, wherever in it a unit is.
    """
    # In float64, and by units in their order: every worker has to find the same.
    totals = torch.bincount(task_of_unit, weights=row_weights.double() * tokens)
    shares = row_weights.double() / totals[task_of_unit]
    return (task_weights * shares).to(row_weights.dtype)
