"""Rows of a file as students are asked about them: the plain prompt, the choices, the right answer.

Teachers are asked about the same rows in words of their own (`pipelines.asking`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.recipe_answers import AnswerTask
from core.run import StageFolder
from pipelines.answers import AnswerReader, Found
from pipelines.asked_texts import FILLING_ERRORS, Asked, fill_in
from pipelines.row_work import Rejection, Row
from pipelines.tasks import storable


@dataclass(frozen=True)
class Question:
    """What a student is asked about a row."""

    id: str
    """Of the input row."""
    asked: Asked
    choices: list[str]
    """Empty where the task has none."""
    right: Found | None
    """The right answer, where the row has one."""
    document: str | None = None
    """Of a task of summaries: what is summed up."""

    @property
    def text(self) -> str:
        """What the user says; of a conversation all of it, a paragraph for each turn."""
        return "\n\n".join(self.asked.turns)


class Questions:
    """Makes questions of input rows."""

    def __init__(self, task: AnswerTask) -> None:
        self._task = task
        self._plain = task.plain
        self._reader = AnswerReader(task, self._plain.answer)

    def of(self, row: Row) -> Question | Rejection:
        """The question about a row, or why there is none.

        Args:
            row: Of `core.rows.INPUT`.
        """
        fields, task = json.loads(row["fields"]), self._task
        try:
            asked = fill_in(self._plain.text, self._plain.system, fields, task.turns)
        except FILLING_ERRORS as error:
            return Rejection("no-field", f"the plain prompt cannot be filled in: {error}", row)
        asked = Asked(storable(asked.system), [storable(turn) for turn in asked.turns])
        if not all(turn.strip() for turn in asked.turns):
            return Rejection("empty", "the plain prompt is empty with this row's fields", row)
        choices = self._choices(fields)
        if choices is None:
            detail = f"there is no list of two texts or more under '{task.choices_field}'"
            return Rejection("no-choices", detail, row)
        right = None
        if task.gold is not None:
            right = self._reader.read_gold(fields.get(task.gold), choices)
        document = None
        if task.document is not None:
            document = fields.get(task.document)
            if not isinstance(document, str) or not document.strip():
                return Rejection("no-field", f"there is no text under '{task.document}'", row)
            document = storable(document)
        return Question(row["id"], asked, choices, right, document)

    def to_be_judged(self, row: Row) -> Question | Rejection:
        """The same of an evaluation row: by right answers, where these make an answer good."""
        right = self._task.measure == "accuracy"
        return self.with_right_answer(row) if right else self.of(row)

    def with_right_answer(self, row: Row) -> Question | Rejection:
        """The same of a row that must have a right answer."""
        question = self.of(row)
        if isinstance(question, Rejection) or question.right is not None:
            return question
        what = "one of its choices" if question.choices else "an answer"
        return Rejection("no-gold", f"what is under '{self._task.gold}' is not {what}", row)

    def _choices(self, fields: dict[str, Any]) -> list[str] | None:
        if self._task.choices is not None:
            return self._task.choices
        if self._task.choices_field is None:
            return []
        listed = fields.get(self._task.choices_field)
        if not isinstance(listed, list) or len(listed) < 2:
            return None
        if not all(isinstance(choice, str) and choice.strip() for choice in listed):
            return None
        return [storable(choice) for choice in listed]


def evaluation_questions(
    rows: StageFolder, questions: Questions
) -> tuple[list[Question], list[tuple[str, Rejection]]]:
    """The questions about evaluation rows, each once, and the rows that there are none about."""
    found: dict[str, Question] = {}
    rejections: list[tuple[str, Rejection]] = []
    for row in each(rows):
        question = questions.to_be_judged(row)
        if isinstance(question, Rejection):
            rejections.append((row["id"], question))
        else:
            found[row["id"]] = question
    return list(found.values()), rejections


def each(rows: StageFolder) -> Iterator[Row]:
    """The input rows of a finished stage, a shard in memory at a time, equal ones as they come."""
    for table in rows.iter_shards():
        yield from table.to_pylist()
