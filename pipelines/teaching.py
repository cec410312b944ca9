"""Training rows of what a teacher answered, as far as an assistant trusts it (2406.05322).

An answer that is trusted too little is left out, or counts the less in the loss: the mean over
tokens by their rows' weights, sum(w_i*NLL_i) / sum(w_i) (`training.objectives.coefficients`). Both
rules are ours: the paper's are not in what we have.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from core.errors import WorkError
from core.identity import content_id
from core.recipe_answers import AnswerTask
from core.recipe_rationales import RationaleLimits
from core.rows import TEXT_TRAINING
from core.stage import StageContext, StageResult
from pipelines.acquiring import judged
from pipelines.questions import each
from pipelines.rationale_count import RationaleCount
from pipelines.row_work import Rejection, Row, rejected_table
from pipelines.shard_writer import ShardWriter
from pipelines.signals import lowest, precision
from pipelines.taught_rows import TaughtRow, taught_shards


def teach(context: StageContext) -> StageResult:
    """Stage: a training row of every answer of the teacher that is learnt.

    Rejected are, beside answers that cannot be read and rationales that are none (as of
    `pipelines.explaining.explain`): `unassessed`, an answer that the assistant gave no confidence
    in; `untrusted`, one in which it has too little; `wrong`, one that is not the right one, where
    only those are learnt.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `answers`, of the teacher
    how its answers are read, as of `pipelines.extraction.extract`; `trust`, of
    `core.recipe_assistance.Trust`: `by`, `threshold` and `share`; `rationales`, a
    `core.recipe_rationales.RationaleLimits` as a dictionary, or None where none are learnt;
    `teacher`.
    Inputs: as of `pipelines.taught_rows.taught_shards`; `assessed`, rows of `core.rows.ASSESSED`,
    where the assistant is asked.

    Raises:
        WorkError: Not one training row came out.
    """
    teaching = _Teaching(context)
    made = ShardWriter(context, TEXT_TRAINING)
    for shard in taught_shards(context):
        rows = [row for taught in shard for row in teaching.rows(taught)]
        made.write(rows, teaching.take_rejections())
    if not made.rows:
        raise WorkError(
            f"stage '{context.stage.stage}'",
            f"nothing of what the teacher answered can be learnt; rejected: {made.reasons}.",
            f"See them in {context.stage.rejected.location}, change assist.trust or the task, and "
            "run again with --update: what was answered stays.",
        )
    return made.result(teaching.facts())


@dataclass
class _Teaching:
    """Makes training rows, and counts."""

    context: StageContext
    _rejections: list[tuple[str, Rejection]] = field(default_factory=list)
    _answers: Counter[str] = field(default_factory=Counter)
    _before: list[tuple[float, bool]] = field(default_factory=list)
    """Of answers that could be read and judged: 1 as their weight, and whether they are right."""
    _after: list[tuple[float, bool]] = field(default_factory=list)
    """The same of those that are learnt, by their weights."""
    _confidences: list[tuple[float, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.context.settings
        self._task = AnswerTask.model_validate(settings["task"])
        self._trust = settings["trust"]
        said = settings["rationales"]
        self._explains = said is not None
        self._rationales = RationaleCount(RationaleLimits.model_validate(said or {}))
        assessed = self.context.inputs.get("assessed")
        listed = [(row["item"], row["confidence"]) for row in each(assessed)] if assessed else []
        self._sure = dict(listed)
        share = self._trust["share"]
        dropped = lowest([sure for _, sure in listed], share) if share else set()
        self._lowest = {listed[place][0] for place in dropped}

    def rows(self, taught: TaughtRow) -> list[Row]:
        """The training row of a row that was put to the teacher, if there is one."""
        self._rejections += taught.faults
        question, found = taught.question, taught.found
        self._answers["answers"] += taught.samples
        self._answers["read"] += taught.samples - len(taught.faults)
        self._answers["outvoted"] += taught.outvoted
        row_id, right = taught.row["id"], taught.right
        if isinstance(question, Rejection):
            self._rejections.append((row_id, question))
            return []
        if found is None:
            return []
        if right is not None:
            self._before.append((1.0, right))
            if row_id in self._sure:
                self._confidences.append((self._sure[row_id], right))
        weight = self._weight(row_id, right=right)
        if isinstance(weight, Rejection):
            self._rejections.append((row_id, weight))
            return []
        if right is not None:
            self._after.append((weight, right))
        if self._task.choices:  # a teacher may always say the same
            self._rationales.label(found.text)
        rationale = None
        if self._explains:
            rationale, fault = self._rationales.learnt(found)
            if fault is not None:
                self._rejections.append((row_id, fault))
        teacher = self.context.settings["teacher"]
        return [
            {
                "id": content_id(question.id, found.key),
                "messages": question.asked.messages(),
                "answer": found.text,
                "rationales": rationale and [{"teacher": teacher, "text": rationale}],
                "weight": weight,
                "source": teacher,
            }
        ]

    def _weight(self, row_id: str, *, right: bool | None) -> float | Rejection:
        """What an answer counts, or why it is not learnt."""
        by, sure = self._trust["by"], self._sure.get(row_id)
        if by == "everything":
            return 1.0
        if by == "gold":
            told = "it is not the right answer, or nobody knows which one is"
            return 1.0 if right else Rejection("wrong", told, {"right": right})
        if sure is None:
            told = "the assistant gave no confidence in it: its own stage has the reason"
            return Rejection("unassessed", told, {"item": row_id})
        told = f"the assistant's confidence in it is {sure:.3g}"
        if by == "weight":
            return sure if sure > 0 else Rejection("untrusted", told, {"confidence": sure})
        threshold = self._trust["threshold"]
        doubted = row_id in self._lowest if threshold is None else sure < threshold
        return Rejection("untrusted", told, {"confidence": sure}) if doubted else 1.0

    def take_rejections(self) -> pa.Table:
        """What was rejected since the last time."""
        teacher = self.context.settings["teacher"]
        found = rejected_table(self.context.stage.stage, self._rejections, teacher)
        self._rejections = []
        return found

    def facts(self) -> dict[str, Any]:
        """What the report tells of the rows."""
        return {
            **{name: self._answers[name] for name in ("answers", "read", "outvoted")},
            "explained": self._rationales.facts(),
            "before": _precise(self._before),
            "after": _precise(self._after),
            "teacher": judged(self._confidences) if self._sure else None,
        }


def _precise(labels: list[tuple[float, bool]]) -> dict[str, Any]:
    """Labels of which somebody knows whether they are right, and the share of right ones."""
    weights, right = [weight for weight, _ in labels], [hit for _, hit in labels]
    return {"labels": len(labels), "precision": precision(weights, right)}
