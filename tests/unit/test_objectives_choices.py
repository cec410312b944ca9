import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.objectives import choice_loss, choice_losses, choice_targets

# softmax([0, ln 3]) = [1/4, 3/4]
STUDENT = torch.tensor([[0.0, math.log(3)]])


def targets(teacher, answer, hard_weight=0.0, temperature=1.0):
    has_teacher = torch.tensor([teacher is not None])
    logits = torch.tensor([teacher or [math.nan, math.nan]], dtype=torch.float64)
    return choice_targets(logits, has_teacher, torch.tensor([answer]), hard_weight, temperature)


@pytest.mark.parametrize(
    ("teacher", "answer", "hard_weight", "temperature", "expected"),
    [
        # softmax([ln 4, 0]) = [4/5, 1/5]; at tau = 2 it is softmax([ln 2, 0]) = [2/3, 1/3].
        pytest.param([math.log(4), 0], 1, 0, 1, [0.8, 0.2], id="soft"),
        pytest.param([math.log(4), 0], 1, 0, 2, [2 / 3, 1 / 3], id="softened"),
        pytest.param([math.log(4), 0], 1, 0, 0, [1, 0], id="argmax at temperature 0"),
        pytest.param([math.log(4), 0], 1, 1, 1, [0, 1], id="hard"),
        pytest.param([math.log(4), 0], 1, 0.25, 1, [0.6, 0.4], id="mixed"),
        pytest.param([math.log(4), 0], 1, 0.25, 0, [0.75, 0.25], id="mixed with argmax"),
        pytest.param(None, 1, 0.25, 1, [0, 1], id="no teacher: all of the hard label"),
        pytest.param(None, 1, 0, 0, [0, 1], id="no teacher at temperature 0"),
        pytest.param([math.log(4), 0], -1, 0.25, 1, [0.8, 0.2], id="no answer: all of the soft"),
        pytest.param([-math.inf, 0], -1, 0, 1, [0, 1], id="an impossible choice"),
    ],
)
def test_targets(teacher, answer, hard_weight, temperature, expected):
    found = targets(teacher, answer, hard_weight, temperature)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64))


def test_targets_ignore_the_teachers_offset():
    raw = targets([2.0, -1.0], -1)
    normalised = targets([math.log(p) for p in raw[0].tolist()], -1)
    torch.testing.assert_close(raw, normalised)


def test_loss_of_a_hard_label():
    loss = choice_loss(STUDENT, torch.tensor([[1.0, 0.0]]), torch.ones(1))
    assert loss.item() == pytest.approx(-math.log(1 / 4))


def test_loss_of_a_mixed_label():
    # 1/4 * CE(y=1) + 3/4 * CE([4/5, 1/5]), worked out apart.
    hard = -math.log(3 / 4)
    soft = -(0.8 * math.log(1 / 4) + 0.2 * math.log(3 / 4))
    mixed = targets([math.log(4), 0], 1, hard_weight=0.25).float()
    loss = choice_loss(STUDENT, mixed, torch.ones(1))
    assert loss.item() == pytest.approx(0.25 * hard + 0.75 * soft)


def test_loss_has_no_factor_for_temperature():
    softened = targets([math.log(4), 0], -1, temperature=2).float()
    loss = choice_loss(STUDENT, softened, torch.ones(1))
    assert loss.item() == pytest.approx(-(2 / 3 * math.log(1 / 4) + 1 / 3 * math.log(3 / 4)))


def test_rows_count_by_their_weights():
    student = STUDENT.repeat(2, 1)
    hard = torch.eye(2)  # losses ln 4 and ln 4/3
    loss = choice_loss(student, hard, torch.tensor([3.0, 1.0]))
    assert loss.item() == pytest.approx((3 * math.log(4) + math.log(4 / 3)) / 4)


def test_slices_of_a_batch_add_up_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 3, generator=generator)
    soft = torch.randn(5, 3, generator=generator).softmax(-1)
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    whole = choice_loss(student, soft, weights)
    parts = [
        choice_loss(student[rows], soft[rows], weights[rows], weights.sum())
        for rows in (slice(0, 1), slice(1, 5))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_gradient():
    student = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 3, dtype=torch.float64)
    soft = choice_targets(
        teacher,
        has_teacher=torch.tensor([True, True, False, True]),
        answers=torch.tensor([0, -1, 2, 1]),
        hard_weight=0.3,
        temperature=0.7,
    )
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: choice_loss(logits, soft, weights), student)


# Two rows of three choices at most, as where each question has choices of its own: the first row
# has the outer two, the second all three. What stands at the missing choice must not matter.
MASK = torch.tensor([[True, False, True], [True, True, True]])
FILLINGS = [0.0, 1e4, -1e4, math.inf, -math.inf, math.nan]


def masked_targets(filling, answers, hard_weight=0.0, temperature=1.0, has_teacher=True):
    # Row 1: softmax([ln 4, -, 0]) = [4/5, -, 1/5]. Row 2: softmax([0, ln 2, 0]) = [1/4, 1/2, 1/4].
    teacher = [[math.log(4), filling, 0], [0, math.log(2), 0]]
    return choice_targets(
        torch.tensor(teacher, dtype=torch.float64),
        has_teacher=torch.tensor([has_teacher, has_teacher]),
        answers=torch.tensor(answers),
        hard_weight=hard_weight,
        temperature=temperature,
        choice_mask=MASK,
    )


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param({"answers": [-1, -1]}, [[0.8, 0, 0.2], [0.25, 0.5, 0.25]], id="soft"),
        pytest.param({"answers": [-1, -1], "temperature": 0}, [[1, 0, 0], [0, 1, 0]], id="argmax"),
        pytest.param(
            {"answers": [2, 0], "hard_weight": 0.5},
            [[0.4, 0, 0.6], [0.625, 0.25, 0.125]],
            id="mixed",
        ),
        pytest.param({"answers": [2, 0], "has_teacher": False}, [[0, 0, 1], [1, 0, 0]], id="hard"),
        # At tau = 2, softmax([ln 2, -, 0]) and softmax([0, ln sqrt 2, 0]).
        pytest.param(
            {"answers": [-1, -1], "temperature": 2},
            [
                [2 / 3, 0, 1 / 3],
                [1 / (2 + 2**0.5), 2**0.5 / (2 + 2**0.5), 1 / (2 + 2**0.5)],
            ],
            id="softened",
        ),
    ],
)
def test_targets_of_rows_with_choices_of_their_own(filling, labels, expected):
    found = masked_targets(filling, **labels)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert found[0, 1] == 0


def test_teacher_below_zero_everywhere_still_prefers_a_choice_that_is_there():
    found = choice_targets(
        torch.tensor([[-5.0, 0.0, -3.0]]),
        has_teacher=torch.tensor([True]),
        answers=torch.tensor([-1]),
        hard_weight=0.0,
        temperature=0.0,
        choice_mask=torch.tensor([[True, False, True]]),
    )
    assert found.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("filling", FILLINGS)
def test_losses_of_rows_with_choices_of_their_own(filling):
    # Row 1: softmax([0, -, ln 3]) = [1/4, -, 3/4]; row 2: softmax([0, 0, 0]).
    student = torch.tensor([[0.0, filling, math.log(3)], [0.0, 0.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[0.8, 0.0, 0.2], [0.25, 0.5, 0.25]])
    losses = choice_losses(student, targets, MASK)
    first = -(0.8 * math.log(1 / 4) + 0.2 * math.log(3 / 4))
    torch.testing.assert_close(losses, torch.tensor([first, math.log(3)]))
    losses.sum().backward()
    # The gradient of a cross-entropy is softmax - target.
    gradient = torch.tensor([[1 / 4 - 0.8, 0, 3 / 4 - 0.2], [1 / 12, 1 / 3 - 1 / 2, 1 / 12]])
    torch.testing.assert_close(student.grad, gradient)


def test_a_missing_choice_is_as_if_it_were_not_there():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(1, 3, generator=generator)
    targets = torch.randn(1, 2, generator=generator).softmax(-1)
    there = choice_losses(student[:, [0, 2]], targets)
    padded = torch.tensor([[targets[0, 0], 0, targets[0, 1]]])
    torch.testing.assert_close(choice_losses(student, padded, MASK[:1]), there)
    alone = choice_losses(student.repeat(2, 1), padded.repeat(2, 1), MASK)[:1]
    torch.testing.assert_close(alone, there)


def test_extreme_logits_have_finite_losses():
    student = torch.tensor([[1e4, -1e4, -1e4], [1e4, -1e4, 0]], requires_grad=True)
    targets = torch.tensor([[0.5, 0, 0.5], [0.25, 0.5, 0.25]])
    losses = choice_losses(student, targets, MASK)
    # Row 1: -log of [1, -, e^-20000]; row 2: of [1, e^-20000, e^-10000].
    torch.testing.assert_close(losses, torch.tensor([1e4, 0.5 * 2e4 + 0.25 * 1e4]))
    losses.sum().backward()
    gradient = torch.tensor([[0.5, 0, -0.5], [0.75, -0.5, -0.25]])
    torch.testing.assert_close(student.grad, gradient)


def test_logits_of_fewer_bits_are_raised_to_the_targets():
    targets = torch.tensor([[0.5, 0.5]])
    losses = choice_losses(torch.zeros(1, 2, dtype=torch.bfloat16), targets)
    assert losses.dtype == torch.float32
    assert losses.item() == pytest.approx(math.log(2))


def test_gradient_with_missing_choices():
    student = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    soft = masked_targets(math.nan, [2, -1], 0.3, 0.7)
    assert torch.autograd.gradcheck(lambda logits: choice_losses(logits, soft, MASK), student)


logits = st.floats(-30, 30)


@settings(deadline=None)
@given(st.lists(st.tuples(logits, logits, st.booleans()), min_size=1, max_size=8), st.randoms())
def test_the_order_of_choices_changes_nothing_and_the_entropy_is_the_least_loss(choices, random):
    choices = [*choices, (0.0, 0.0, True)]  # one choice is there

    def entropy_and_loss(these):
        teacher, student, there = (torch.tensor([column]) for column in zip(*these, strict=True))
        targets = choice_targets(
            teacher.double(), torch.tensor([True]), torch.tensor([-1]), 0.0, 1.0, choice_mask=there
        )
        entropy = torch.special.entr(targets).sum().item()
        return entropy, choice_losses(student.double(), targets, there).item()

    entropy, loss = entropy_and_loss(choices)
    assert loss >= entropy - 1e-9
    random.shuffle(choices)
    assert entropy_and_loss(choices) == pytest.approx((entropy, loss))
