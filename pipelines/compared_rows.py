"""Evaluation rows of methods whose answers are found in texts, for the comparison over HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from core.recipe_answers import AnswerTask
from core.run import StageFolder
from pipelines.answered_rows import read_samples, vote
from pipelines.answers import AnswerReader, Found
from pipelines.asked_texts import FILLING_ERRORS, fill_in
from pipelines.questions import Questions, each
from pipelines.row_work import Rejection, Row


def compared_rows(
    rows: StageFolder, task: AnswerTask, teacher_prompt: str | dict[str, str]
) -> list[Row]:
    """Rows that both teacher and student can be asked about, each once.

    Each has what a task row has, and beside it `prompt`, the teacher's own, filled in, `messages`,
    what a student that writes is asked, and `key`, by which an answer is known to be right.

    Args:
        rows: Finished stage of evaluation rows.
        task: What students are asked.
        teacher_prompt: Jinja text that is filled in with a row's fields, or as `user` beside
            `system`, which is the same for every row.
    """
    questions = Questions(task)
    user = teacher_prompt if isinstance(teacher_prompt, str) else teacher_prompt["user"]
    found: dict[str, Row] = {}
    for row in each(rows):
        question = questions.with_right_answer(row)
        if isinstance(question, Rejection):
            continue
        assert question.right is not None, "it has one"
        choice = question.right.choice
        try:
            asked = fill_in(user, "", json.loads(row["fields"]))
        except FILLING_ERRORS:  # the teacher cannot be asked about it
            continue
        found[row["id"]] = {
            "id": row["id"],
            "question": question.text,
            "choices": question.choices,
            "answer": 0 if choice is None else choice,
            "difficulty": None,
            "prompt": asked.turns[0],
            "messages": question.asked.messages(),
            "key": question.right.key,
        }
    return list(found.values())


@dataclass(frozen=True)
class TeacherJudge:
    """Whether what a teacher wrote is right: the majority of its samples, as when it was judged."""

    reader: AnswerReader

    def __call__(self, row: Row, texts: list[str]) -> bool:
        """Judge all texts to one row."""
        samples = [{"text": text} for text in texts]
        winner = vote(read_samples(samples, self.reader, row["choices"]))
        return winner is not None and winner.found.key == row["key"]


@dataclass(frozen=True)
class StudentJudge:
    """Whether what a student wrote behind the plain prompt is right."""

    reader: AnswerReader

    def __call__(self, row: Row, texts: list[str]) -> bool:
        """Judge its one text."""
        found: Any = self.reader.read(texts[0], row["choices"])
        return isinstance(found, Found) and found.key == row["key"]
