"""A teacher scores every choice of a row: log-probabilities of labels, one prefill for each prompt.

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
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.label_prompts import LabelPrompts
from pipelines.permutations import mean_by_choice
from pipelines.prompt_files import prompt_version
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs without content, as in the calibration paper."""


@dataclass(frozen=True)
class ScoreChoices:
    """Scores one row; the work of a planned row {id, item, question, intended}."""

    prompts: LabelPrompts
    engine: Engine
    teacher: str
    choices: list[str]
    offsets: list[float]
    """Per choice: its log-probability for an input without content."""

    schema = SCORED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Ask for the labels' log-probabilities."""
        scores = await score_question(self.prompts, self.engine, row["question"], self.choices)
        if scores.error:
            return Rejection(scores.reason, scores.error, row)
        return {
            **row,
            "teacher": self.teacher,
            "choices": self.choices,
            "logprobs": scores.logprobs,
            "calibrated": (np.array(scores.logprobs) - self.offsets).tolist(),
            "usage": asdict(scores.usage),
        }


async def score_question(
    prompts: LabelPrompts, engine: Engine, question: str, choices: list[str]
) -> LabelScores:
    """Score a question's choices: the mean over its prompts, per choice; or the first failure."""
    asked = prompts.ask(question, choices)
    scores = await asyncio.gather(
        *(engine.score_labels(prompt.text, prompt.labels) for prompt in asked)
    )
    failed = next((s for s in scores if s.error), None)
    if failed is not None:
        return failed
    mean = mean_by_choice([prompt.listed for prompt in asked], [s.logprobs for s in scores])
    return LabelScores(mean, sum((s.usage for s in scores), Usage()))


def content_free_offsets(prompts: LabelPrompts, engine: Engine, choices: list[str]) -> list[float]:
    """What the prompts say of choices without any content, by the prompts that score rows.

    Under letters this holds for these choices in these permutations: choices of another row need
    offsets of their own, at three times the prefills of the row.

    Raises:
        WorkError: The examples alone do not fit the teacher.
    """

    async def ask() -> list[LabelScores]:
        asked = (score_question(prompts, engine, text, choices) for text in CONTENT_FREE)
        scores = await asyncio.gather(*asked)
        await engine.disconnect()
        return scores

    scores = asyncio.run(ask())
    failed = next((s for s in scores if s.error), None)
    if failed is not None:
        mend = "Use fewer or shorter examples, or raise engine.max_model_len."
        if failed.reason != "too-long":
            mend = "It must score inputs without content too: 'N/A', '[MASK]' and an empty one."
        raise WorkError(
            "task.examples",
            f"the teacher cannot score with these examples: {failed.error}.",
            mend,
        )
    return log_mean([s.logprobs for s in scores])


def log_mean(logprobs: list[list[float]]) -> list[float]:
    """Log of the mean probability over inputs, per choice; of [inputs, choices]."""
    mean: np.ndarray = np.logaddexp.reduce(logprobs) - np.log(len(logprobs))
    return list(mean.tolist())


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

    Settings: `teacher`, `orders`, and `permutations` where the labels are letters.
    Inputs: `examples`, task rows; `rows`, generated or task rows.
    """
    recipe = context.recipe.student_recipe
    teacher, orders = context.settings["teacher"], context.settings["orders"]
    permutations = context.settings.get("permutations")
    examples = context.inputs["examples"].read().to_pylist()
    prompts = LabelPrompts(FewshotPrompts(recipe.task, examples), orders, permutations)
    choices = recipe.task.choices
    engine = context.engine(teacher)
    offsets = content_free_offsets(prompts, engine, choices)
    parts = {
        "task": recipe.task.model_dump(exclude={"examples", "evaluation"}),
        "examples": [row["id"] for row in examples],
        "prompt": prompt_version(prompts.file),
        "model": teacher_revision(teacher, context.recipe),
        "orders": orders,
    }
    if permutations is not None:
        parts["permutations"] = permutations
    result = run_shards(
        context,
        [
            Lane(
                engine,
                plan_scores(context.inputs["rows"].read(), parts),
                ScoreChoices(prompts, engine, teacher, choices, offsets),
            )
        ],
    )
    result.facts["offsets"] = offsets
    return result
