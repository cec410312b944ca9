"""What prompts to one teacher cost, and what they give: tokens, labels and rationales.

So a zero-shot prompt stands beside one with examples, on the same rows. In 2403.15886 it costs 15%.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from core.recipe_answers import AnswerTask
from core.rows import PROMPT_MEASURE
from core.stage import StageContext, StageResult
from pipelines.answered_rows import answered_rows, answers_of
from pipelines.answers import AnswerReader, Found
from pipelines.explaining import ANSWERS
from pipelines.questions import Questions
from pipelines.row_work import Rejection, Row, rejected_table

TOKENS = ("tokens_in", "tokens_cached", "tokens_out")


def measure(context: StageContext) -> StageResult:
    """Stage: a row for each prompt, over some rows.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `answers`, by prompt: how
    what is written behind it is read.
    Inputs: `inputs`, input rows that prompts were asked about; `rows`, those of them that count;
    for each prompt `answers-NAME`.
    """
    task = AnswerTask.model_validate(context.settings["task"])
    questions, readers = Questions(task), answers_of(context)
    counted = {
        row["id"]
        for table in context.inputs["rows"].iter_shards(["id"])
        for row in table.to_pylist()
    }
    found = []
    for role, folder in context.inputs.items():
        if not role.startswith(ANSWERS):
            continue
        name = role.removeprefix(ANSWERS)
        measured = _Measured(AnswerReader(task, readers[name]), questions)
        for shard in answered_rows(context.inputs["inputs"], folder, ["usage"]):
            for row, by_teacher in shard:
                if row["id"] in counted:
                    for answers in by_teacher.values():
                        measured.add(row, answers)
        found.append({"prompt": name, "rows": len(counted), **measured.row()})
    rejected = rejected_table(context.stage.stage, [])
    context.stage.commit_shard("rows", pa.Table.from_pylist(found, schema=PROMPT_MEASURE), rejected)
    return StageResult(["rows"], len(found))


class _Measured:
    """Counts what one prompt cost and gave."""

    def __init__(self, reader: AnswerReader, questions: Questions) -> None:
        self._reader = reader
        self._questions = questions
        self._counts = dict.fromkeys(("answers", "labelled", "judged", "right", "explained"), 0)
        self._words = 0
        self._tokens: dict[str, int | None] = dict.fromkeys(TOKENS, 0)

    def add(self, row: Row, answers: list[Row]) -> None:
        """Count what was answered to a row."""
        question = self._questions.of(row)
        if isinstance(question, Rejection):
            return
        for answer in answers:
            self._counts["answers"] += 1
            for name, so_far in self._tokens.items():
                more = answer["usage"][name]
                self._tokens[name] = None if so_far is None or more is None else so_far + more
            found = self._reader.read(answer["text"], question.choices)
            if question.right is not None:
                self._counts["judged"] += 1
            if not isinstance(found, Found):
                continue
            self._counts["labelled"] += 1
            if question.right is not None:
                self._counts["right"] += found.key == question.right.key
            if found.rationale:
                self._counts["explained"] += 1
                self._words += len(found.rationale.split())

    def row(self) -> dict[str, Any]:
        """The counts, with the words of a rationale on average."""
        explained = self._counts["explained"]
        words = self._words / explained if explained else None
        return {**self._counts, "mean_words": words, **self._tokens}
