"""A teaching assistant's confidence in answers: of the student, and of the teacher (2406.05322).

The assistant is a model that gives the probabilities of words. How its confidence is computed from
them is not in what we have of the paper: the two forms here are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import WorkError
from core.identity import content_id
from core.models import teacher_revision
from core.recipe_answers import AnswerTask
from core.rows import ASSESSED
from core.stage import StageContext, StageResult
from core.teacher import Engine, LabelScores, SequenceScore
from pipelines.asked_texts import FILLING_ERRORS, fill_in
from pipelines.questions import Questions, each
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards
from pipelines.signals import mean_likelihood, p_true
from pipelines.taught_rows import taught_rows


@dataclass(frozen=True)
class AssessAnswer:
    """Assesses one answer; the work of a planned row {id, item, fields, answer, rationale, right}.

    An assistant that gives no number is no engine's fault that would show by itself: the row is
    rejected as `no-confidence`.
    """

    engine: Engine
    questions: Questions
    user: str
    """Jinja text, filled in with the row's fields, `asked`, `answer` and `rationale`."""
    system: str
    by: str
    """`p_true` or `likelihood`."""
    words: tuple[str, str]
    """Of `p_true`: what stands for right and for wrong."""

    schema = ASSESSED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Ask for the probabilities, and make one number of them."""
        question = self.questions.of({"id": row["item"], "fields": row["fields"]})
        if isinstance(question, Rejection):
            return question
        fields = {
            **json.loads(row["fields"]),
            "asked": question.text,
            "answer": row["answer"],
            "rationale": row["rationale"] or "",
        }
        try:
            asked = fill_in(self.user, self.system, fields)
        except FILLING_ERRORS as error:
            told = f"the assistant's prompt cannot be filled in: {error}"
            return Rejection("no-field", told, row)
        prompt = "\n\n".join(filter(None, [asked.system, *asked.turns]))
        confidence, scores = await self._confidence(prompt, row["answer"])
        if scores.error:
            return Rejection(scores.reason, scores.error, row)
        if confidence is None:
            told = f"the assistant's log-probabilities are {scores.logprobs}: they tell nothing"
            return Rejection("no-confidence", told, row)
        return {
            "id": row["id"],
            "item": row["item"],
            "teacher": self.engine.teacher,
            "answer": row["answer"],
            "rationale": row["rationale"],
            "confidence": confidence,
            "right": row["right"],
            "usage": asdict(scores.usage),
        }

    async def _confidence(
        self, prompt: str, answer: str
    ) -> tuple[float | None, LabelScores | SequenceScore]:
        if self.by == "likelihood":
            text = await self.engine.score_text(prompt, f" {answer}")
            return mean_likelihood(text.logprobs), text
        words = await self.engine.score_labels(prompt, list(self.words))
        return None if words.error else p_true(*words.logprobs), words


def assess_student(context: StageContext) -> StageResult:
    """Stage: the assistant's confidence in what most of a student's samples came to.

    Where none has an answer there is nothing to assess.

    Settings: as of `assess_teacher`, without `answers`.
    Inputs: `sampled`, rows of `core.rows.SAMPLED`.
    """
    return _assess(
        context,
        (
            {**row, "item": row["id"], "rationale": None}
            for row in each(context.inputs["sampled"])
            if row["answer"] is not None
        ),
    )


def assess_teacher(context: StageContext) -> StageResult:
    """Stage: the assistant's confidence in what a teacher's samples of each row came to.

    Settings: `assistant`, its name; `task`, a `core.recipe_answers.AnswerTask` as a dictionary;
    `user` and `system`, its prompt; `by`; `words`; `answers`, by teacher: how its answers are read,
    as of `pipelines.extraction.extract`.
    Inputs: as of `pipelines.taught_rows.taught_rows`.
    """
    return _assess(
        context,
        (
            {
                **taught.row,
                "item": taught.row["id"],
                "answer": taught.found.text,
                "rationale": taught.found.rationale,
                "right": taught.right,
            }
            for taught in taught_rows(context)
            if taught.found is not None
        ),
    )


def _assess(context: StageContext, answers: Iterator[Row]) -> StageResult:
    settings = context.settings
    engine = context.engine(settings["assistant"])
    made_from = {
        "model": teacher_revision(settings["assistant"], context.recipe),
        **{name: settings[name] for name in ("user", "system", "by", "words", "task")},
    }
    work = AssessAnswer(
        engine,
        Questions(AnswerTask.model_validate(settings["task"])),
        settings["user"],
        settings["system"],
        settings["by"],
        tuple(settings["words"]),
    )

    def planned() -> Iterator[dict[str, Any]]:
        for row in answers:
            said = {name: row[name] for name in ("item", "answer", "rationale")}
            yield {
                **said,
                "id": content_id(made_from, said),
                "fields": row["fields"],
                "right": row["right"],
            }

    result = run_shards(context, [Lane(engine, planned(), work)])
    if result.rejected and not result.rows:
        reasons = ", ".join(f"{number} {reason}" for reason, number in result.rejected.items())
        raise WorkError(
            f"stage '{context.stage.stage}'",
            f"{engine.teacher} gave no confidence in any answer; rejected: {reasons}.",
            f"See them in {context.stage.rejected.location}. Where a model's probabilities are no "
            "numbers, another engine.dtype often mends it.",
        )
    return result
