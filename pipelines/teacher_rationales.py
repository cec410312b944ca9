"""Training rows of right answers with the rationales of any number of teachers (2402.04616).

Every row learns its right answer, and of each teacher why it is right, in the first of its samples
that can be learnt. A teacher has been told the answer, so a rationale that does no more than repeat
it is none. What a teacher thinks the answer is does not count here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from core.errors import WorkError
from core.identity import content_id
from core.recipe_answers import AnswerTask
from core.recipe_rationales import ForcedRationales
from core.rows import TEXT_TRAINING
from core.stage import StageContext, StageResult
from pipelines.answered_rows import Answers, answered_rows, answers_of
from pipelines.answers import AnswerReader, NotFound
from pipelines.in_context import origin
from pipelines.questions import Question, Questions
from pipelines.rationales import RationaleFilter, new_words
from pipelines.row_work import Rejection, Row, rejected_table
from pipelines.shard_writer import ShardWriter


def rationalize(context: StageContext) -> StageResult:
    """Stage: training rows of students that write: the right answer, and teachers' rationales.

    A text in which there is no rationale to learn is rejected as `no-rationale`,
    `short-rationale`, `long-rationale`, `repeated-rationale` or `answer-alone`, under its own id.
    The row keeps its answer, and the rationales of other teachers.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `answers`, by teacher: how
    a rationale is found, as of `pipelines.extraction.extract`; `rationales`, a
    `core.recipe_rationales.ForcedRationales` as a dictionary.
    Inputs: `inputs`, rows as teachers saw them; `answers`, what they wrote, if they were asked.

    Raises:
        WorkError: Not one row has a right answer.
    """
    rationales = _Rationales(context)
    inputs, answers = context.inputs["inputs"], context.inputs.get("answers")
    made = ShardWriter(context, TEXT_TRAINING, of=inputs)
    for shard in answered_rows(inputs, answers):
        rows = [one for row, by_teacher in shard for one in rationales.rows(row, by_teacher)]
        made.write(rows, rationales.take_rejections(context.stage.stage), read=len(shard))
    if not made.rows:
        raise WorkError(
            f"stage '{context.stage.stage}'",
            "no row has a right answer to learn.",
            "Check task.gold and the rejected rows of the stage 'show'.",
        )
    return made.result(rationales.facts())


@dataclass
class _Teacher:
    """What becomes of one teacher's rationales."""

    reader: AnswerReader
    limits: RationaleFilter
    answers: int = 0
    words: Counter[int] = field(default_factory=Counter)
    """How many rationales of so many words are learnt."""
    rejections: list[tuple[str, Rejection]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


class _Rationales:
    """Makes training rows, and counts."""

    def __init__(self, context: StageContext) -> None:
        task = AnswerTask.model_validate(context.settings["task"])
        self._wanted = ForcedRationales.model_validate(context.settings["rationales"])
        self._questions = Questions(task)
        # Repeats are counted by teacher: two that agree are no sign of one that babbles.
        self._teachers = {
            name: _Teacher(AnswerReader(task, answer), RationaleFilter(self._wanted))
            for name, answer in answers_of(context).items()
        }
        self._faults: list[tuple[str, Rejection]] = []
        self._seen: set[bytes] = set()
        """Ids of rows that were made, some 100 bytes each: equal rows count once."""

    def rows(self, row: Row, answers: Answers) -> Iterator[Row]:
        """The training row of a row, if there is one."""
        row_id = bytes.fromhex(row["id"])
        if row_id in self._seen:
            return
        self._seen.add(row_id)
        question = self._questions.with_right_answer(row)
        if isinstance(question, Rejection):
            self._faults.append((row["id"], question))
            return
        assert question.right is not None, "asked for in the lines above"
        found = [
            {"teacher": name, "text": text}
            for name, listed in answers.items()
            if (text := self._rationale(self._teachers[name], question, listed)) is not None
        ]
        yield {
            # As without anything shown: what is learnt of a row does not change its place.
            "id": content_id(origin(row), question.right.key),
            "messages": question.asked.messages(),
            "answer": question.right.text,
            "rationales": found or None,
            "weight": 1.0,
            "source": "gold",
        }

    def _rationale(
        self, teacher: _Teacher, question: Question, answers: Sequence[Row]
    ) -> str | None:
        """The first of a teacher's samples that can be learnt."""
        teacher.answers += len(answers)
        for answer in answers:
            learnt = self._learnt(teacher, question, answer["text"])
            if isinstance(learnt, str):
                teacher.words[len(learnt.split())] += 1
                return learnt
            told = Rejection(learnt.reason, learnt.detail, answer)
            teacher.rejections.append((answer["id"], told))
            teacher.reasons[learnt.reason] += 1
        return None

    def _learnt(self, teacher: _Teacher, question: Question, text: str) -> str | NotFound:
        assert question.right is not None, "only such questions come here"
        why = teacher.reader.rationale(text)
        known = [question.right.text]
        if self._wanted.known == "question":
            known.append(question.text)
        least = self._wanted.min_new_words
        if why is not None and len(new_words(why, known)) < least:
            told = f"the rationale does no more than repeat the {self._wanted.known}"
            return NotFound("answer-alone", told)
        return teacher.limits.learnt(why)

    def take_rejections(self, stage: str) -> pa.Table:
        """What was rejected since the last time."""
        tables = [rejected_table(stage, self._faults)]
        self._faults = []
        for name, teacher in self._teachers.items():
            tables.append(rejected_table(stage, teacher.rejections, name))
            teacher.rejections = []
        return pa.concat_tables(tables)

    def facts(self) -> dict[str, Any]:
        """What the report tells of the rows."""
        teachers = self._teachers.values()
        return {
            "answers": sum(one.answers for one in teachers),
            "read": sum(one.words.total() for one in teachers),
            "outvoted": 0,
            "rationales": {
                name: {
                    "answers": one.answers,
                    "learnt": one.words.total(),
                    "mean_words": sum(n * of for n, of in one.words.items()) / one.words.total()
                    if one.words
                    else None,
                    "rejected": dict(one.reasons.most_common()),
                }
                for name, one in self._teachers.items()
            },
        }
