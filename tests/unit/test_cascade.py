"""Cascades, by hand-worked examples."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.recipe_serving import Serve
from serving.answers import Answer, Question
from serving.cascade import CascadeStudent
from serving.cascade_curve import Row, at, cascade, choose, curve, halves
from serving.models import Description

# The student is right where it is sure; the teacher is right on three of four.
ROWS = [
    Row("00000000", 0.9, True, True),
    Row("00000002", 0.8, True, False),
    Row("00000004", 0.6, False, True),
    Row("00000006", 0.5, False, True),
]


def test_the_curve_goes_from_all_student_to_all_teacher():
    found = [(point.deferred, point.accuracy) for point in curve(ROWS)]
    assert found == [(0, 0.5), (0.25, 0.75), (0.5, 1.0), (0.75, 0.75), (1, 0.75)]


def test_equal_confidences_are_deferred_together():
    rows = [Row("0", 0.5, True, False), Row("1", 0.5, False, True), Row("2", 0.7, True, True)]
    assert [point.deferred for point in curve(rows)] == [0, pytest.approx(2 / 3), 1]


def test_the_least_deferred_share_that_is_close_enough_is_chosen():
    assert choose(ROWS, 0.0).threshold == 0.5  # three of four, as the teacher
    assert choose(ROWS, 0.25).threshold == 0.0
    assert choose(ROWS, -0.25).threshold == 0.6  # better than the teacher


def test_it_is_judged_on_rows_that_it_was_not_chosen_on():
    others = [Row(f"0000000{n}", 0.4, False, n == 1) for n in (1, 3)]
    found = cascade([*ROWS, *others], within=0.0)
    assert halves([*ROWS, *others]) == (ROWS, others)
    assert found.chosen.threshold == 0.5
    assert (found.judged.deferred, found.judged.accuracy) == (1.0, 0.5)
    assert (found.student, found.teacher) == (0.0, 0.5)
    assert cascade(ROWS) is None  # nothing is left to judge it on


@given(
    st.lists(
        st.builds(
            Row,
            st.integers(0, 2**32 - 1).map("{:08x}".format),
            st.floats(0.2, 1.0),
            st.booleans(),
            st.booleans(),
        ),
        min_size=1,
    ),
    st.floats(0, 0.2),
)
def test_the_ends_are_the_two_models_and_what_is_chosen_is_close_enough(rows, within):
    points = curve(rows)
    assert points[0].right == sum(row.student_right for row in rows)
    assert points[-1].right == sum(row.teacher_right for row in rows)
    shares = [point.deferred for point in points]
    assert shares == sorted(shares)
    chosen = choose(rows, within)
    assert chosen == at(rows, chosen.threshold)
    assert chosen.accuracy >= points[-1].accuracy - within - 1e-9


class Sure:
    """A model that is as sure as its question says."""

    holds_device = False
    description = Description("student", "encoder", ("a", "b"))

    def __init__(self, name):
        self.name = name
        self.asked = []
        self.refuses = False

    def load(self, settings):
        return self

    async def answer(self, questions):
        if self.refuses:
            return [Answer((), [], error="too long") for _ in questions]
        self.asked += [question.text for question in questions]
        return [
            Answer((), [], error="bad")
            if question.text == "bad"
            else Answer(("a", "b"), [float(question.text), 1 - float(question.text)])
            for question in questions
        ]

    def statistics(self):
        return {}


def test_the_teacher_is_asked_only_where_the_student_is_not_sure():
    student, teacher = Sure("student"), Sure("teacher")
    loaded = CascadeStudent(student, teacher, 0.7, "small", "large").load(Serve())
    texts = ["0.9", "0.6", "bad", "0.7", "0.2"]
    answers = asyncio.run(loaded.answer([Question(text) for text in texts]))
    assert teacher.asked == ["0.6", "0.7"]  # 0.2 of a is 0.8 of b
    assert [answer.answered_by for answer in answers] == [
        "small",
        "large",
        "small",
        "large",
        "small",
    ]
    assert answers[2].error == "bad"
    teacher.asked.clear()
    asyncio.run(loaded.answer([Question("0.9")]))
    assert teacher.asked == []


def test_where_the_teacher_refuses_the_student_has_answered():
    student, teacher = Sure("student"), Sure("teacher")
    teacher.refuses = True
    loaded = CascadeStudent(student, teacher, 0.7, "small", "large").load(Serve())
    (answer,) = asyncio.run(loaded.answer([Question("0.6")]))
    assert (answer.answered_by, answer.error) == ("small", "")
