"""How the serving room asks a teacher over HTTP: prompts, labels and calibration in one object."""

from __future__ import annotations

from dataclasses import dataclass

from core.stage import StageContext
from core.teacher import Engine, LabelScores
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.label_prompts import LabelPrompts
from pipelines.scoring import content_free_offsets, score_question


@dataclass(frozen=True)
class FewshotChoiceScorer:
    """A teacher's scores as the training rows have them: the mean over the same prompts."""

    prompts: LabelPrompts
    choices: list[str]
    offsets: list[float]
    """Per choice, subtracted from its log-probability; zeros where raw scores do better."""

    async def score(self, engine: Engine, question: str) -> LabelScores:
        """Log-probabilities of the choices."""
        return await score_question(self.prompts, engine, question, self.choices)


def fewshot_choice_scorer(context: StageContext) -> FewshotChoiceScorer:
    """The teacher's scoring, in the setting that was measured to be its best.

    Settings: `teacher`; `orders`; `permutations`, where the labels are letters.
    Inputs: `examples`, task rows; `predicted`, the teacher's predictions.
    """
    task = context.recipe.student_recipe.task
    prompts = LabelPrompts(
        FewshotPrompts(task, context.inputs["examples"].read().to_pylist()),
        context.settings["orders"],
        context.settings.get("permutations"),
    )
    teacher = context.settings["teacher"]
    manifest = context.inputs["predicted"].manifest()
    assert manifest is not None
    accuracy = manifest.facts["accuracy"]
    offsets = [0.0] * len(task.choices)
    if accuracy[f"{teacher} calibrated"] > accuracy[f"{teacher} raw"]:
        offsets = content_free_offsets(prompts, context.engine(teacher), task.choices)
    return FewshotChoiceScorer(prompts, task.choices, offsets)
