"""The rows that a teacher was asked about with a teaching assistant, and what it answered to each.

They come in two parts, each with the rows and the answers to them: those that were drawn for the
warm-up, and those that were chosen afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.recipe_answers import AnswerTask
from core.stage import StageContext
from pipelines.answered_rows import answered_rows, answers_of, read_samples, vote
from pipelines.answers import AnswerReader, Found, NotFound
from pipelines.questions import Question, Questions
from pipelines.row_work import Rejection, Row

PARTS = ("-warm-up", "")
"""What the roles of `rows` and of `answers` end with."""


@dataclass(frozen=True)
class TaughtRow:
    """A row that was put to the teacher."""

    row: Row
    """Of `core.rows.INPUT`."""
    question: Question | Rejection
    """What the student is asked about it, or why it cannot be."""
    samples: int
    """Answers that came."""
    found: Found | None
    """What most of them came to; None where none could be read."""
    outvoted: int
    """Of those that could be read, the others."""
    faults: list[tuple[str, Rejection]]
    """Of answers that could not be read, by the answers' ids."""

    @property
    def right(self) -> bool | None:
        """Whether the answer is the right one; None where nobody knows, or there is none."""
        if self.found is None or isinstance(self.question, Rejection):
            return None
        right = self.question.right
        return None if right is None else right.key == self.found.key


def taught_shards(context: StageContext) -> Iterator[list[TaughtRow]]:
    """The rows of each shard, in their order, the warm-up's first.

    Args:
        context: Of a stage with the settings `task`, a `core.recipe_answers.AnswerTask` as a
            dictionary, and `answers`, of the one teacher how its answers are read; and with the
            inputs `rows` and `answers`, `rows-warm-up` and `answers-warm-up`, or one pair of them.
    """
    task = AnswerTask.model_validate(context.settings["task"])
    questions = Questions(task)
    (answer,) = answers_of(context).values()
    reader = AnswerReader(task, answer)
    for part in PARTS:
        if f"rows{part}" not in context.inputs:
            continue
        rows, answers = (context.inputs[f"{role}{part}"] for role in ("rows", "answers"))
        for shard in answered_rows(rows, answers):
            yield [
                _taught(row, [one for listed in said.values() for one in listed], questions, reader)
                for row, said in shard
            ]


def taught_rows(context: StageContext) -> Iterator[TaughtRow]:
    """The rows of all shards."""
    for shard in taught_shards(context):
        yield from shard


def _taught(row: Row, said: list[Row], questions: Questions, reader: AnswerReader) -> TaughtRow:
    question = questions.of(row)
    if isinstance(question, Rejection):
        return TaughtRow(row, question, len(said), None, 0, [])
    read = read_samples(said, reader, question.choices)
    faults = [
        (answer["id"], Rejection(one.reason, one.detail, answer))
        for answer, one in zip(said, read, strict=True)
        if isinstance(one, NotFound)
    ]
    winner = vote(read)
    found, outvoted = (winner.found, winner.outvoted) if winner else (None, 0)
    return TaughtRow(row, question, len(said), found, outvoted, faults)
