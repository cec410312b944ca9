import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.objectives import IGNORED, sequence_losses, unit_coefficients, weighted_sum


def logs(*probabilities):
    return [math.log(probability) for probability in probabilities]


LOGITS = torch.tensor(
    [
        [logs(0.5, 0.25, 0.25), logs(0.1, 0.1, 0.8), logs(0.2, 0.6, 0.2)],
        [logs(0.25, 0.5, 0.25), logs(0.3, 0.3, 0.4), logs(0.1, 0.1, 0.8)],
    ]
)
LABELS = torch.tensor([[IGNORED, 2, 0], [1, IGNORED, IGNORED]])
LOSSES = [-math.log(0.8) - math.log(0.2), -math.log(0.5)]


def test_sum_of_the_tokens_that_are_learnt():
    found = sequence_losses(LOGITS + 7, LABELS)  # logits of any offset
    torch.testing.assert_close(found, torch.tensor(LOSSES))


def test_gradient_is_softmax_less_label_where_something_is_learnt():
    logits = LOGITS.clone().requires_grad_()
    sequence_losses(logits, LABELS).sum().backward()
    expected = torch.zeros(2, 3, 3)
    expected[0, 1] = torch.tensor([0.1, 0.1, 0.8 - 1])
    expected[0, 2] = torch.tensor([0.2 - 1, 0.6, 0.2])
    expected[1, 0] = torch.tensor([0.25, 0.5 - 1, 0.25])
    torch.testing.assert_close(logits.grad, expected)


def test_gradient():
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda these: sequence_losses(these, LABELS), logits)


def test_a_sequence_in_which_nothing_is_learnt():
    logits = LOGITS.clone().requires_grad_()
    losses = sequence_losses(logits, torch.full_like(LABELS, IGNORED))
    assert losses.tolist() == [0, 0]
    losses.sum().backward()  # it takes part in the backward pass all the same
    assert not logits.grad.any()


@pytest.mark.parametrize("filling", [math.nan, math.inf, -math.inf])
def test_places_where_nothing_is_learnt_are_not_looked_at(filling):
    logits = LOGITS.clone()
    logits[LABELS == IGNORED] = filling
    logits.requires_grad_()
    losses = sequence_losses(logits, LABELS)
    torch.testing.assert_close(losses, torch.tensor(LOSSES))
    losses.sum().backward()
    assert logits.grad.isfinite().all()


def test_a_sequence_alone_and_without_padding_has_the_same_loss():
    alone = torch.cat(
        [sequence_losses(LOGITS[:1], LABELS[:1]), sequence_losses(LOGITS[1:, :1], LABELS[1:, :1])]
    )
    torch.testing.assert_close(sequence_losses(LOGITS, LABELS), alone)


def test_extreme_logits_have_finite_losses():
    logits = torch.tensor([[[1e4, -1e4, 0.0]]], requires_grad=True)
    loss = sequence_losses(logits, torch.tensor([[1]]))
    assert loss.item() == 2e4
    loss.sum().backward()
    assert logits.grad.tolist() == [[[1, -1, 0]]]


def test_an_impossible_token_costs_nothing_where_another_is_right():
    logits = torch.tensor([[[0.0, -math.inf, 0.0]]], requires_grad=True)
    loss = sequence_losses(logits, torch.tensor([[0]]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.sum().backward()
    assert logits.grad.tolist() == [[[-0.5, 0, 0.5]]]


def test_bfloat16_logits_are_summed_in_float32():
    # 512 tokens of ln 3 each: bfloat16, with 8 bits, would stop growing at 256.
    logits = torch.zeros(1, 512, 3, dtype=torch.bfloat16, requires_grad=True)
    loss = sequence_losses(logits, torch.zeros(1, 512, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(512 * math.log(3))
    loss.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_one_copy_of_the_places_that_count_is_kept_for_the_backward_pass():
    kept = {}
    logits = torch.zeros(4, 8, 1000, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.full((4, 8), IGNORED)
    labels[:, :2] = 0
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.setdefault(tensor.data_ptr(), tensor),
        lambda tensor: tensor,
    ):
        sequence_losses(logits, labels)
    one_copy = 4 * 2 * 1000 * 4  # bytes
    assert one_copy <= sum(tensor.nbytes for tensor in kept.values()) < 1.1 * one_copy


# Two rows: one of weight 1 with an answer of 2 tokens and a rationale of 3; one of weight 3 with an
# answer of 1 token and no rationale. Answers weigh 1, rationales 1/2.
UNITS = {
    "row_weights": torch.tensor([1.0, 1.0, 3.0]),
    "task_weights": torch.tensor([1.0, 0.5, 1.0]),
    "tokens": torch.tensor([2, 3, 1]),
    "task_of_unit": torch.tensor([0, 1, 0]),
}


def test_coefficients():
    # Answers: 1*2 + 3*1 = 5. Rationales: 1*3 = 3.
    found = unit_coefficients(**UNITS)
    torch.testing.assert_close(found, torch.tensor([1 / 5, 0.5 / 3, 3 / 5]))


def test_loss_is_the_sum_over_tasks_of_the_mean_over_tokens():
    # Token losses: answers 2, 4 and 1, the last with weight 3; rationale 3, 3 and 6.
    loss = weighted_sum(torch.tensor([6.0, 12.0, 1.0]), unit_coefficients(**UNITS))
    assert loss.item() == pytest.approx((2 + 4 + 3 * 1) / (1 + 1 + 3) + 0.5 * (3 + 3 + 6) / 3)


def test_confidences_weigh_the_mean():
    confidences = torch.tensor([0.9, 0.5, 0.1])
    coefficients = unit_coefficients(
        confidences, torch.ones(3), torch.ones(3, dtype=torch.long), torch.zeros(3).long()
    )
    loss = weighted_sum(torch.tensor([1.0, 2.0, 4.0]), coefficients)
    assert loss.item() == pytest.approx((0.9 * 1 + 0.5 * 2 + 0.1 * 4) / (0.9 + 0.5 + 0.1))


def test_confidences_weigh_every_token_of_their_row():
    # Answers of 2 and 3 tokens with confidences 0.9 and 0.3, token losses 1, 2 and 3, 4, 5.
    coefficients = unit_coefficients(
        torch.tensor([0.9, 0.3]), torch.ones(2), torch.tensor([2, 3]), torch.zeros(2).long()
    )
    loss = weighted_sum(torch.tensor([3.0, 12.0]), coefficients)
    assert loss.item() == pytest.approx((0.9 * (1 + 2) + 0.3 * (3 + 4 + 5)) / (0.9 * 2 + 0.3 * 3))


def test_gradient_of_the_weighted_loss():
    coefficients = unit_coefficients(
        torch.tensor([1.0, 3.0]), torch.ones(2), torch.tensor([2, 1]), torch.zeros(2).long()
    )
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda these: weighted_sum(sequence_losses(these, LABELS), coefficients), logits
    )


units = st.lists(
    st.tuples(st.floats(0.01, 10), st.integers(0, 3), st.integers(1, 500), st.floats(0, 20)),
    min_size=1,
    max_size=20,
)


@settings(deadline=None)
@given(units, st.integers(0, 20))
def test_parts_of_a_batch_add_up_to_it_and_a_token_loss_of_one_to_the_task_weights(units, cut):
    task_weights = torch.tensor([1.0, 0.5, 0.0, 3.0], dtype=torch.float64)
    weights, tasks, tokens, losses = (torch.tensor(column) for column in zip(*units, strict=True))
    coefficients = unit_coefficients(weights.double(), task_weights[tasks], tokens, tasks)
    of_ones = weighted_sum(tokens.double(), coefficients)
    assert of_ones.item() == pytest.approx(task_weights[tasks.unique()].sum().item())
    whole = weighted_sum(losses, coefficients)
    parts = [
        weighted_sum(losses[part], coefficients[part]) for part in (slice(cut), slice(cut, None))
    ]
    assert sum(parts).item() == pytest.approx(whole.item())
