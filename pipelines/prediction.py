"""Evaluation of methods whose answers are found in texts: teachers and students, on the same rows.

A text without an answer counts as wrong. What a teacher was asked in vain, say because nothing is
recorded, does not count: it is told beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from core.errors import WorkError
from core.models import model_folder
from core.recipe_answers import AnswerTask
from core.recipe_section import Device
from core.rows import WRITTEN
from core.run import count_by_reason
from core.stage import StageContext, StageResult
from pipelines.answered_rows import answered_rows, read_samples, vote
from pipelines.answers import AnswerReader, Found
from pipelines.questions import Question, Questions, evaluation_questions
from pipelines.row_work import Row, rejected_table


def predict_teachers(context: StageContext) -> StageResult:
    """Stage: every teacher's answers to the evaluation rows, each the majority of its samples.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary.
    Inputs: `rows`, the evaluation rows; `answers`, what teachers answered to them.
    """
    evaluation = _Evaluation(context)
    questions = {question.id: question for question in evaluation.questions}
    rows = []
    for shard in answered_rows(context.inputs["rows"], context.inputs["answers"]):
        for row, by_teacher in shard:
            question = questions.get(row["id"])
            for teacher, listed in by_teacher.items() if question else ():
                assert question is not None, "asked in the line above"
                winner = vote(read_samples(listed, evaluation.reader, question.choices))
                found = winner.found if winner else None
                rows.append(_written(question, teacher, listed[0]["text"], found))
    if not rows:
        raise WorkError(
            "the evaluation rows",
            "no teacher has answered one of them.",
            f"{context.inputs['answers'].rejected.location} has the reasons.",
        )
    return evaluation.commit(rows)


def predict_student(context: StageContext) -> StageResult:
    """Stage: a student's answers to the evaluation rows, behind the plain prompt.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `student`, its name in the
    recipe; `family`; `device`, a `core.recipe_section.Device` as a dictionary.
    Inputs: `student`, with its Hugging Face folder; `rows`, the evaluation rows.
    """
    evaluation, name = _Evaluation(context), context.settings["student"]
    if context.settings["family"] == "encoder":
        from pipelines.evaluation import choose_tasks

        tasks = [_task(question) for question in evaluation.questions]
        return choose_tasks(context, name, tasks, evaluation.rejections)
    from pipelines.student_texts import write

    texts = write(
        model_folder(context.inputs["student"].folder.child("student").location),
        [
            (question.id, evaluation.task.messages(question.text))
            for question in evaluation.questions
        ],
        Device.model_validate(context.settings["device"]),
    )
    rows = []
    for question in evaluation.questions:
        found = evaluation.reader.read_plain(texts[question.id], question.choices)
        answer = found if isinstance(found, Found) else None
        rows.append(_written(question, name, texts[question.id], answer))
    return evaluation.commit(rows)


class _Evaluation:
    """The evaluation rows of a stage as questions, and what is told of the answers."""

    def __init__(self, context: StageContext) -> None:
        self.task = AnswerTask.model_validate(context.settings["task"])
        self.reader = AnswerReader(self.task)
        self._context = context
        self.questions, self.rejections = evaluation_questions(
            context.inputs["rows"], Questions(self.task, self.reader)
        )
        if not self.questions:
            first = f" The first: {self.rejections[0][1].detail}." if self.rejections else ""
            raise WorkError(
                "the evaluation rows",
                f"none of them can be asked and judged.{first}",
                "Change task.prompt, task.gold or evaluation.columns in the recipe.",
            )

    def commit(self, rows: list[Row]) -> StageResult:
        """Commit the answers of models that write."""
        stage = self._context.stage
        rejected = rejected_table(stage.stage, self.rejections)
        stage.commit_shard("rows", pa.Table.from_pylist(rows, schema=WRITTEN), rejected)
        return StageResult(
            ["rows"], len(rows), count_by_reason(rejected), figures(rows, len(self.questions))
        )


def figures(rows: Sequence[Row], questions: int) -> dict[str, Any]:
    """By model: accuracy, and how many texts had no answer or were never written.

    Args:
        rows: Of `core.rows.WRITTEN`.
        questions: That each model was asked.
    """
    answered = Counter(row["model"] for row in rows)
    right = Counter(row["model"] for row in rows if row["right"])
    unparsed = Counter(row["model"] for row in rows if row["predicted"] is None)
    return {
        "accuracy": {model: right[model] / number for model, number in answered.items()},
        "unparsed": {model: unparsed[model] for model in answered},
        "unanswered": {model: questions - number for model, number in answered.items()},
    }


def _written(question: Question, model: str, text: str, found: Found | None) -> Row:
    assert question.right is not None, "evaluation rows have one"
    return {
        "id": question.id,
        "model": model,
        "question": question.text,
        "answer": question.right.text,
        "text": text,
        "predicted": found.text if found else None,
        "right": found is not None and found.key == question.right.key,
    }


def _task(question: Question) -> Row:
    """A question as a task row."""
    assert question.right is not None, "evaluation rows have one"
    return {
        "id": question.id,
        "question": question.text,
        "choices": question.choices,
        "answer": question.right.choice,
        "difficulty": None,
    }
