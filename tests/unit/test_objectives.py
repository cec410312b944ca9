import math

import pytest
import torch

from training.objectives import choice_loss, choice_targets

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
