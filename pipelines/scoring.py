"""A teacher scores every choice of a row: one prefill for each prompt, or for each whole choice.

With contextual calibration (Zhao et al. 2021, arXiv 2102.09690) the labels' scores for inputs
without content, which show the prompt's own bias, are subtracted. Where rows have choices of their
own this is done for whole texts, with an empty question: what is left is how much likelier the
question makes a choice (domain-conditional PMI, Holtzman et al. 2021, arXiv 2104.08315), and long
or rare choices are not worse for that.
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
from core.recipe import Task
from core.rows import SCORED
from core.stage import StageContext, StageResult
from core.teacher import Engine, LabelScores, Usage
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.label_prompts import LabelPrompt, LabelPrompts
from pipelines.permutations import mean_by_choice
from pipelines.prompt_files import prompt_version
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards
from pipelines.tasks import first_of_each_subject

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs without content, as in the calibration paper."""


@dataclass(frozen=True)
class ScoreChoices:
    """Scores one row; the work of a planned row {id, item, question, intended}.

    Where rows have choices of their own, these stand in `choices`, and the examples' `subject`.
    """

    prompts: LabelPrompts
    engine: Engine
    teacher: str
    choices: list[str] | None
    """Those of every row; None where rows have their own."""
    offsets: list[float] | None
    """Per choice: its log-probability for an input without content; None where rows have their
    own."""

    schema = SCORED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Ask for the labels' log-probabilities."""
        choices = self.choices or row["choices"]
        subject = row.get("subject")
        scores = await score_question(self.prompts, self.engine, row["question"], choices, subject)
        if scores.error:
            return Rejection(scores.reason, scores.error, row)
        usage, offsets = scores.usage, self.offsets
        if offsets is None and self.prompts.whole:
            free = await score_question(self.prompts, self.engine, "", choices, subject)
            if free.error:
                return Rejection(free.reason, free.error, row)
            usage, offsets = usage + free.usage, free.logprobs
        calibrated = None if offsets is None else np.array(scores.logprobs) - offsets
        return {
            **row,
            "teacher": self.teacher,
            "choices": choices,
            "logprobs": scores.logprobs,
            "calibrated": None if calibrated is None else calibrated.tolist(),
            "usage": asdict(usage),
        }


async def score_question(
    prompts: LabelPrompts,
    engine: Engine,
    question: str,
    choices: list[str],
    subject: str | None = None,
) -> LabelScores:
    """Score a question's choices: the mean over its prompts, per choice; or the first failure."""
    asked = prompts.ask(question, choices, subject)
    score = score_texts if prompts.whole else score_labels
    scores = await asyncio.gather(*(score(engine, prompt) for prompt in asked))
    failed = next((s for s in scores if s.error), None)
    if failed is not None:
        return failed
    mean = mean_by_choice([prompt.listed for prompt in asked], [s.logprobs for s in scores])
    return LabelScores(mean, sum((s.usage for s in scores), Usage()))


async def score_labels(engine: Engine, prompt: LabelPrompt) -> LabelScores:
    """Score labels of one token each."""
    return await engine.score_labels(prompt.text, prompt.labels)


async def score_texts(engine: Engine, prompt: LabelPrompt) -> LabelScores:
    """Score labels of any length: the sum of their tokens' log-probabilities."""
    scores = await asyncio.gather(*(engine.score_text(prompt.text, one) for one in prompt.labels))
    failed = next((s for s in scores if s.error), None)
    if failed is not None:
        return LabelScores([], failed.usage, failed.error, failed.reason)
    usage = sum((s.usage for s in scores), Usage())
    return LabelScores([sum(s.logprobs) for s in scores], usage)


def label_prompts(
    task: Task,
    examples: list[dict[str, Any]],
    *,
    orders: int,
    permutations: int | None,
    whole: bool,
    shots: int | None,
) -> LabelPrompts:
    """The prompts of a stage that scores.

    Args:
        task: The recipe's.
        examples: Task rows.
        orders: Orders of the examples.
        permutations: Orders of the choices under letters; None where they are not listed.
        whole: Whether choices are scored by their whole texts.
        shots: Examples of each subject that are shown, the first ones; all if None.
    """
    shown = examples if shots is None else first_of_each_subject(examples, shots)
    return LabelPrompts(FewshotPrompts(task, shown), orders, permutations, whole)


ASKED = ("orders", "permutations", "whole", "shots")
"""What the settings of a stage say of its prompts."""


def asked_by(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `label_prompts` that a stage's settings have."""
    defaults = {"permutations": None, "whole": False, "shots": None}
    return {**defaults, **{name: settings[name] for name in ASKED if name in settings}}


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


def plan_scores(
    rows: pa.Table, parts: dict[str, Any], *, own_choices: bool = False
) -> Iterator[dict[str, Any]]:
    """Lay out rows to score.

    Args:
        rows: Generated or task rows.
        parts: Everything else that decides a score.
        own_choices: Whether rows have choices of their own.
    """
    for row in rows.to_pylist():
        of_row = {name: row[name] for name in ("choices", "subject")} if own_choices else {}
        yield {
            "id": content_id(parts, row["question"], *of_row.values()),
            "item": row["id"],
            "question": row["question"],
            "intended": row.get("intended"),
            **of_row,
        }


def score(context: StageContext) -> StageResult:
    """Stage: let a teacher score every choice.

    Settings: `teacher`, `orders`; `permutations`, where the labels are letters; `whole`, where they
    are the choices' whole texts; `shots`, where not all examples are shown.
    Inputs: `examples`, task rows; `rows`, generated or task rows.
    """
    recipe = context.recipe.student_recipe
    teacher, asked = context.settings["teacher"], asked_by(context.settings)
    examples = context.inputs["examples"].read().to_pylist()
    prompts = label_prompts(recipe.task, examples, **asked)
    choices = recipe.task.choices
    engine = context.engine(teacher)
    offsets = content_free_offsets(prompts, engine, choices) if choices else None
    parts = {
        "task": recipe.task.words,
        "examples": [row["id"] for row in prompts.prompts.examples],
        "prompt": prompt_version(prompts.file),
        "model": teacher_revision(teacher, context.recipe),
        **{name: value for name, value in asked.items() if value and name != "shots"},
    }
    result = run_shards(
        context,
        [
            Lane(
                engine,
                plan_scores(context.inputs["rows"].read(), parts, own_choices=choices is None),
                ScoreChoices(prompts, engine, teacher, choices, offsets),
            )
        ],
    )
    if offsets is not None:
        result.facts["offsets"] = offsets
    return result
