import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr

from training.objectives import logit_losses

DIVERGENCES = ["forward_kl", "reverse_kl", "jsd"]


def losses(student, top_ids, top_logprobs, divergence="forward_kl", **others):
    """Of one sequence with one place, unless said otherwise."""
    student = torch.as_tensor(student)
    places = student.shape[:-1]
    settings = {
        "token_ids": torch.zeros(places, dtype=torch.long),
        "mask": torch.ones(places, dtype=torch.bool),
        "beta": 0.5,
        "hard_weight": 0.0,
    }
    return logit_losses(
        student_logits=student,
        top_ids=torch.as_tensor(top_ids),
        top_logprobs=torch.as_tensor(top_logprobs),
        divergence=divergence,
        **(settings | others),
    )


def logs(*probabilities):
    return [math.log(probability) for probability in probabilities]


# A vocabulary of 4. Student: [1/2, 1/4, 1/8, 1/8]. Of its teacher it knows that token 1 has 1/2 and
# token 0 has 1/8, so that the rest has 3/8, beside the student's 1/4.
STUDENT = torch.tensor([[logs(4, 2, 1, 1)]], dtype=torch.float64)
TOP_IDS = torch.tensor([[[1, 0]]])
TOP_LOGPROBS = torch.tensor([[logs(1 / 2, 1 / 8)]], dtype=torch.float64)
FORWARD = 1 / 2 * math.log(2) + 1 / 8 * math.log(1 / 4) + 3 / 8 * math.log(3 / 2)
REVERSE = 1 / 4 * math.log(1 / 2) + 1 / 2 * math.log(4) + 1 / 4 * math.log(2 / 3)
# With beta = 1/4, m = p/4 + 3q/4 = [1/8 + 3/16, 1/32 + 3/8, 3/32 + 3/16] = [5/16, 13/32, 9/32].
JSD = 1 / 4 * (
    1 / 2 * math.log(8 / 5) + 1 / 8 * math.log(4 / 13) + 3 / 8 * math.log(4 / 3)
) + 3 / 4 * (1 / 4 * math.log(4 / 5) + 1 / 2 * math.log(16 / 13) + 1 / 4 * math.log(8 / 9))


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [("forward_kl", FORWARD), ("reverse_kl", REVERSE), ("jsd", JSD)],
)
def test_divergence(divergence, expected):
    found = losses(STUDENT + 7, TOP_IDS, TOP_LOGPROBS, divergence, beta=0.25)
    assert found.tolist() == pytest.approx([expected])


@pytest.mark.parametrize(("token", "hard"), [(0, math.log(2)), (3, math.log(8))])
def test_cross_entropy_of_what_the_teacher_wrote(token, hard):
    # Token 3 is none of the teacher's likeliest.
    for share in (0.0, 0.3, 1.0):
        found = losses(
            STUDENT, TOP_IDS, TOP_LOGPROBS, token_ids=torch.tensor([[token]]), hard_weight=share
        )
        assert found.tolist() == pytest.approx([share * hard + (1 - share) * FORWARD])


def test_gradient_of_the_forward_kl_is_student_less_teacher():
    student = STUDENT.clone().requires_grad_()
    losses(student, TOP_IDS, TOP_LOGPROBS).sum().backward()
    # What the rest lacks is shared out among its tokens as the student has them, 1 to 1.
    expected = [1 / 2 - 1 / 8, 1 / 4 - 1 / 2, (1 / 4 - 3 / 8) / 2, (1 / 4 - 3 / 8) / 2]
    torch.testing.assert_close(student.grad[0, 0], torch.tensor(expected, dtype=torch.float64))


MIXED = {"beta": 0.3, "hard_weight": 0.4}
MASK = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])


def batch(vocabulary=6, k=3):
    """Three sequences of three places, and a teacher's likeliest tokens of each."""
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(3, 3, vocabulary, generator=generator, dtype=torch.float64)
    teacher = torch.randn(3, 3, vocabulary, generator=generator, dtype=torch.float64).log_softmax(
        -1
    )
    top = teacher.topk(k)
    tokens = torch.randint(vocabulary, (3, 3), generator=generator)
    return student, tokens, top.indices, top.values


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("k", [1, 3, 5, 6])
def test_gradient(divergence, k):
    student, tokens, ids, logprobs = batch(k=k)
    assert torch.autograd.gradcheck(
        lambda logits: logit_losses(
            logits, tokens, ids, logprobs, MASK, divergence=divergence, **MIXED
        ),
        student.requires_grad_(),
    )


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_places_add_up_and_a_sequence_alone_has_the_same_loss(divergence):
    student, tokens, ids, logprobs = batch()
    whole = logit_losses(student, tokens, ids, logprobs, MASK, divergence=divergence, **MIXED)

    def one(sequence, place):
        at = (slice(sequence, sequence + 1), slice(place, place + 1))
        parts = (part[at] for part in (student, tokens, ids, logprobs, MASK))
        return logit_losses(*parts, divergence=divergence, **MIXED).item()

    assert whole.tolist() == pytest.approx([one(0, 0) + one(0, 1), one(1, 1), 0.0])


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_places_where_nothing_is_learnt_are_not_looked_at(divergence):
    student, tokens, ids, logprobs = batch()
    expected = logit_losses(student, tokens, ids, logprobs, MASK, divergence=divergence, **MIXED)
    student[~MASK], logprobs[~MASK] = math.nan, math.nan
    tokens[~MASK], ids[~MASK] = -100, -1
    student.requires_grad_()
    found = logit_losses(student, tokens, ids, logprobs, MASK, divergence=divergence, **MIXED)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert student.grad.isfinite().all()
    assert not student.grad[~MASK].any()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_batch_in_which_nothing_is_learnt(divergence):
    student, tokens, ids, logprobs = batch()
    student.requires_grad_()
    nowhere = torch.zeros_like(MASK)
    found = logit_losses(student, tokens, ids, logprobs, nowhere, divergence=divergence, **MIXED)
    assert found.tolist() == [0, 0, 0]
    found.sum().backward()  # it takes part in the backward pass all the same
    assert not student.grad.any()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_student_that_is_sure_of_the_likeliest_tokens(divergence):
    # It gives the rest e^-100 and each of two tokens 1/2; the teacher 0.2, and 0.4 each. In float32
    # 1 - (1/2 + 1/2) would be 0.
    found = losses(
        torch.tensor([[[0.0, 0.0, -100 - math.log(2), -100 - math.log(2)]]]) + 50,
        [[[0, 1]]],
        [[logs(0.4, 0.4)]],
        divergence,
    )
    expected = {
        "forward_kl": 0.8 * math.log(0.8) + 0.2 * (math.log(0.2) + 100 + math.log(2)),
        "reverse_kl": math.log(0.5 / 0.4),
        # m = [0.45, 0.45, 0.1]
        "jsd": 0.5 * (0.8 * math.log(0.4 / 0.45) + 0.2 * math.log(2)) + 0.5 * math.log(0.5 / 0.45),
    }
    assert found.item() == pytest.approx(expected[divergence], rel=1e-5)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_extreme_logits_have_finite_losses_and_gradients(divergence):
    # In float32 the student's probabilities are [1, 0, 0, 0].
    student = torch.tensor([[[1e4, -1e4, -1e4, 0.0]]], requires_grad=True)
    top_ids, top_logprobs = [[[1, 0]]], [[logs(1 / 2, 1 / 4)]]
    loss = losses(student, top_ids, top_logprobs, divergence)
    loss.sum().backward()
    expected, gradient = {
        # Token 1 has e^-20000, the rest e^-10000. The gradient is [1, 0, 0] - [1/4, 1/2, 1/4].
        "forward_kl": (
            1 / 4 * math.log(1 / 4)
            + 1 / 2 * (math.log(1 / 2) + 2e4)
            + 1 / 4 * (1e4 + math.log(1 / 4)),
            [3 / 4, -1 / 2, 0.0, -1 / 4],
        ),
        "reverse_kl": (math.log(4), [0.0, 0.0, 0.0, 0.0]),
        # m = [5/8, 1/4, 1/8]
        "jsd": (
            1 / 2 * (1 / 4 * math.log(2 / 5) + 1 / 2 * math.log(2) + 1 / 4 * math.log(2))
            + 1 / 2 * math.log(8 / 5),
            [0.0, 0.0, 0.0, 0.0],
        ),
    }[divergence]
    assert loss.item() == pytest.approx(expected)
    torch.testing.assert_close(student.grad, torch.tensor([[gradient]]))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_teacher_whose_rounded_probabilities_exceed_one(divergence):
    # ln 1/5 = -1.609438 is -1.609375 in float16. The student gives 1/8 to each of 8 tokens.
    rounded = torch.full((1, 1, 5), math.log(0.2)).half()
    assert rounded.double().exp().sum() > 1.00006
    student = torch.zeros(1, 1, 8, requires_grad=True)
    loss = losses(student, torch.arange(5).reshape(1, 1, 5), rounded, divergence)
    expected = {
        "forward_kl": math.log(0.2 / 0.125),
        # The rest is taken to have 1e-6.
        "reverse_kl": 0.625 * math.log(0.125 / 0.2) + 0.375 * math.log(0.375 / 1e-6),
        "jsd": 0.5 * math.log(0.2 / 0.1625)
        + 0.5 * (0.625 * math.log(0.125 / 0.1625) + 0.375 * math.log(2)),
    }
    assert loss.item() == pytest.approx(expected[divergence], abs=3e-5)
    loss.sum().backward()
    assert student.grad.isfinite().all()


def test_a_student_that_agrees_with_the_stored_teacher_has_no_loss():
    student = batch(vocabulary=50)[0].float()
    top = student.log_softmax(-1).topk(8)
    for divergence in DIVERGENCES:
        found = losses(student, top.indices, top.values.half(), divergence)
        assert found.tolist() == pytest.approx([0, 0, 0], abs=1e-5)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_token_that_is_impossible_to_the_teacher(divergence):
    student = torch.zeros(1, 1, 4, requires_grad=True)
    loss = losses(student, [[[0, 1]]], [[[math.log(0.5), -math.inf]]], divergence)
    expected = {
        # [1/2, 0, 1/2] beside [1/4, 1/4, 1/2]
        "forward_kl": 0.5 * math.log(2),
        # As if its log-probability were the least that float16 holds.
        "reverse_kl": 0.25 * math.log(1 / 2) + 0.25 * (math.log(1 / 4) + 65504),
        # m = [3/8, 1/8, 1/2]
        "jsd": 0.5 * (0.5 * math.log(4 / 3)) + 0.5 * (0.25 * math.log(2 / 3) + 0.25 * math.log(2)),
    }
    assert loss.item() == pytest.approx(expected[divergence])
    loss.sum().backward()
    assert student.grad.isfinite().all()


def test_bfloat16_logits_are_compared_in_float32():
    student = STUDENT.to(torch.bfloat16).expand(1, 600, 4).clone().requires_grad_()
    ids, logprobs = TOP_IDS.expand(1, 600, 2), TOP_LOGPROBS.half().expand(1, 600, 2)
    loss = losses(student, ids, logprobs)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(600 * FORWARD, rel=0.02)
    loss.sum().backward()
    assert student.grad.dtype == torch.bfloat16


def test_the_logits_that_are_given_stay_as_they_are():
    student, _tokens, ids, logprobs = batch()
    before = student.clone()
    losses(student, ids, logprobs)
    assert torch.equal(student, before)


def test_one_copy_of_the_places_that_count_is_kept_for_the_backward_pass():
    kept = {}
    student = torch.zeros(4, 8, 1000, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:, :2] = True
    ids = torch.arange(4).expand(4, 8, 4)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.setdefault(tensor.data_ptr(), tensor),
        lambda tensor: tensor,
    ):
        losses(student, ids, torch.full((4, 8, 4), -2.0), mask=mask, hard_weight=0.5)
    one_copy = 4 * 2 * 1000 * 4  # bytes
    assert one_copy <= sum(tensor.nbytes for tensor in kept.values()) < 1.1 * one_copy


def over_all(divergence, teacher, student, beta):
    """The same over the whole vocabulary, from log-probabilities."""
    p, q = np.exp(teacher), np.exp(student)
    if divergence == "forward_kl":
        return rel_entr(p, q).sum()
    if divergence == "reverse_kl":
        return rel_entr(q, p).sum()
    m = beta * p + (1 - beta) * q
    return beta * rel_entr(p, m).sum() + (1 - beta) * rel_entr(q, m).sum()


@st.composite
def pairs(draw):
    """Log-probabilities of a teacher and a student over a vocabulary of 2 to 9."""
    size = draw(st.integers(2, 9))
    logits = st.lists(st.floats(-4, 4), min_size=size, max_size=size)
    return log_softmax(draw(logits)), log_softmax(draw(logits))


def of_top(teacher, student, k, divergence, beta):
    return of_these(teacher, student, np.argsort(-teacher)[:k].copy(), divergence, beta)


def of_these(teacher, student, ids, divergence, beta):
    return losses(
        student[None, None], ids[None, None], teacher[ids][None, None], divergence, beta=beta
    ).item()


divergences = st.sampled_from(DIVERGENCES)
betas = st.floats(0.05, 0.95)


@settings(deadline=None)
@given(pairs(), divergences, betas)
def test_all_tokens_or_all_but_one_are_the_whole_vocabulary(pair, divergence, beta):
    teacher, student = pair
    whole = over_all(divergence, teacher, student, beta)
    for k in (len(teacher) - 1, len(teacher)):
        assert of_top(teacher, student, k, divergence, beta) == pytest.approx(whole, abs=1e-9)


@settings(deadline=None)
@given(pairs(), divergences, betas)
def test_fewer_tokens_tell_less(pair, divergence, beta):
    found = [of_top(*pair, k, divergence, beta) for k in range(1, len(pair[0]) + 1)]
    assert found[0] >= -1e-12
    assert all(one <= other + 1e-9 for one, other in pairwise(found))


@settings(deadline=None)
@given(pairs())
def test_jsd_with_equal_shares_is_symmetric_and_at_most_ln_2(pair):
    teacher, student = pair
    found = of_top(teacher, student, len(teacher), "jsd", 0.5)
    assert found == pytest.approx(of_top(student, teacher, len(teacher), "jsd", 0.5))
    assert found <= math.log(2)


@settings(deadline=None)
@given(pairs(), divergences, betas, st.randoms(), st.data())
def test_the_order_of_the_vocabulary_changes_nothing(pair, divergence, beta, random, data):
    teacher, student = pair
    ids = np.argsort(-teacher)[: data.draw(st.integers(1, len(teacher)))].copy()
    order = list(range(len(teacher)))
    random.shuffle(order)
    moved = np.argsort(order)[ids]
    expected = of_these(teacher, student, ids, divergence, beta)
    found = of_these(teacher[order], student[order], moved, divergence, beta)
    assert found == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(pairs(), betas)
def test_extreme_shares_of_jsd_tend_to_the_two_kls(pair, beta):
    # (2306.13649, section 3): JSD / beta tends to KL(p||q) as beta tends to 0, and JSD / (1-beta)
    # to KL(q||p) as it tends to 1.
    teacher, student = pair
    size = len(teacher)
    forward = of_top(teacher, student, size, "forward_kl", 0.5)
    reverse = of_top(teacher, student, size, "reverse_kl", 0.5)
    least = 1e-5
    near_zero = of_top(teacher, student, size, "jsd", least) / least
    near_one = of_top(teacher, student, size, "jsd", 1 - least) / least
    assert near_zero == pytest.approx(forward, rel=0.05, abs=1e-6)
    assert near_one == pytest.approx(reverse, rel=0.05, abs=1e-6)
