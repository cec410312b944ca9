"""A teacher scores every choice of a row: one prefill a row, log-probabilities of the labels.

With contextual calibration (Zhao et al. 2021, arXiv 2102.09690) the labels' scores for inputs
without content, which show the prompt's own bias, are subtracted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import WorkError
from core.identity import content_id
from core.models import teacher_revision
from core.rows import SCORED
from core.stage import StageContext, StageResult
from core.teacher import Engine, LabelScores, Usage
from pipelines.fewshot_prompts import FOLDER, FewshotPrompts
from pipelines.prompt_files import prompt_version
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs without content, as in the calibration paper."""


@dataclass(frozen=True)
class ScoreChoices:
    """Scores one row; the work of a planned row {id, item, question, intended}."""

    prompts: FewshotPrompts
    engine: Engine
    teacher: str
    orders: int
    offsets: list[float]
    """Per choice: its log-probability for an input without content."""

    schema = SCORED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Ask for the labels' log-probabilities."""
        scores, failed = await score_question(
            self.prompts, self.engine, row["question"], self.orders
        )
        if failed is not None:
            return Rejection(failed.reason, failed.error, row)
        logprobs = np.mean([s.logprobs for s in scores], axis=0)
        return {
            **row,
            "teacher": self.teacher,
            "choices": self.prompts.task.choices,
            "logprobs": logprobs.tolist(),
            "calibrated": (logprobs - np.array(self.offsets)).tolist(),
            "usage": asdict(sum((s.usage for s in scores), Usage())),
        }


async def score_question(
    prompts: FewshotPrompts, engine: Engine, question: str, orders: int
) -> tuple[list[LabelScores], LabelScores | None]:
    """Score a question once per order of the examples; the second value is the first failure."""
    scores = await asyncio.gather(
        *(
            engine.score_labels(prompts.score_choice(question, order), prompts.labels())
            for order in range(orders)
        )
    )
    return scores, next((s for s in scores if s.error), None)


def content_free_offsets(prompts: FewshotPrompts, engine: Engine, orders: int) -> list[float]:
    """Log of the labels' mean probability over inputs without content, per choice.

    Raises:
        WorkError: The examples alone do not fit the teacher.
    """

    async def ask() -> list[float]:
        answers = await asyncio.gather(
            *(score_question(prompts, engine, text, orders) for text in CONTENT_FREE)
        )
        await engine.disconnect()
        failed = next((failed for _, failed in answers if failed), None)
        if failed is not None:
            mend = "Use fewer or shorter examples, or raise engine.max_model_len."
            if failed.reason != "too-long":
                mend = "It must score inputs without content too: 'N/A', '[MASK]' and an empty one."
            raise WorkError(
                "task.examples",
                f"the teacher cannot score with these examples: {failed.error}.",
                mend,
            )
        logprobs = [np.mean([s.logprobs for s in scores], axis=0) for scores, _ in answers]
        mean: np.ndarray = np.logaddexp.reduce(logprobs) - np.log(len(logprobs))
        return list(mean.tolist())

    return asyncio.run(ask())


def plan_scores(rows: pa.Table, parts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Lay out rows to score; `parts` is everything else that decides a score."""
    for row in rows.to_pylist():
        yield {
            "id": content_id(parts, row["question"]),
            "item": row["id"],
            "question": row["question"],
            "intended": row.get("intended"),
        }


def score(context: StageContext) -> StageResult:
    """Stage: let a teacher score every choice.

    Settings: `teacher`, `orders`.
    Inputs: `examples`, task rows; `rows`, generated or task rows.
    """
    recipe = context.recipe.student_recipe
    teacher, orders = context.settings["teacher"], context.settings["orders"]
    examples = context.inputs["examples"].read().to_pylist()
    prompts = FewshotPrompts(recipe.task, examples)
    engine = context.engine(teacher)
    offsets = content_free_offsets(prompts, engine, orders)
    parts = {
        "task": recipe.task.model_dump(exclude={"examples", "evaluation"}),
        "examples": [row["id"] for row in examples],
        "prompt": prompt_version(f"{FOLDER}/score_choice.j2"),
        "model": teacher_revision(teacher, context.recipe),
        "orders": orders,
    }
    result = run_shards(
        context,
        [
            Lane(
                engine,
                plan_scores(context.inputs["rows"].read(), parts),
                ScoreChoices(prompts, engine, teacher, orders, offsets),
            )
        ],
    )
    result.facts["offsets"] = offsets
    return result
