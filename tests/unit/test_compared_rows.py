"""Which rows teacher and student are compared on, and who is right."""

import json

import pyarrow as pa
import pytest

from core.recipe_answers import AnswerTask
from core.rows import INPUT, REJECTED
from core.run import Folder, Manifest, Run
from pipelines.answers import AnswerReader
from pipelines.compared_rows import StudentJudge, TeacherJudge, compared_rows

TASK = AnswerTask.model_validate(
    {
        "kind": "choices",
        "choices_field": "options",
        "prompt": "{{ text }}?",
        "gold": "right",
        "answer": {"pattern": "Answer: (.*)", "form": "letter"},
    }
)
FIELDS = [
    {"text": "Where do fish live", "options": ["trees", "water"], "right": "water"},
    {"text": "Nobody knows", "options": ["yes", "no"], "right": "maybe"},
    {"text": "Where do birds live", "options": ["trees", "water"], "right": 0},
]


@pytest.fixture
def rows(tmp_path):
    stage = Run(Folder(str(tmp_path))).stage("evaluation", "0" * 12)
    listed = [{"id": f"{n:032x}", "fields": json.dumps(fields)} for n, fields in enumerate(FIELDS)]
    # The same row twice is one question.
    table = pa.Table.from_pylist([*listed, listed[0]], schema=INPUT)
    stage.commit_shard("all", table, REJECTED.empty_table())
    stage.commit(Manifest("evaluation", "f", {}, ["all"], table.num_rows, {}))
    return compared_rows(stage, TASK, "Think step by step. {{ text }}? Options: {{ options }}")


def test_both_are_asked_about_rows_with_a_right_answer_each_in_its_own_words(rows):
    assert [row["question"] for row in rows] == ["Where do fish live?", "Where do birds live?"]
    assert rows[0]["prompt"] == (
        "Think step by step. Where do fish live? Options: ['trees', 'water']"
    )
    assert [(row["choices"], row["answer"]) for row in rows] == [
        (["trees", "water"], 1),
        (["trees", "water"], 0),
    ]


def test_a_teacher_is_right_where_most_of_its_samples_are(rows):
    judge = TeacherJudge(AnswerReader(TASK))
    assert judge(rows[0], ["So. Answer: (b)", "Answer: water", "Answer: trees"])
    assert not judge(rows[0], ["Answer: trees", "Answer: (a)", "Answer: (b)"])
    assert not judge(rows[0], ["I do not know.", "Me neither."])


def test_a_student_is_right_where_its_text_is_the_answer(rows):
    judge = StudentJudge(AnswerReader(TASK, TASK.plain.answer))
    assert judge(rows[0], ["water"])
    assert not judge(rows[0], ["trees"])
    assert not judge(rows[0], ["something else"])
