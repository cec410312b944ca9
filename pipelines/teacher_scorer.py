"""How the serving room asks a teacher over HTTP: prompts, labels and calibration in one object."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.stage import StageContext
from core.teacher import Engine, LabelScores
from pipelines.label_prompts import LabelPrompts
from pipelines.scoring import asked_by, content_free_offsets, label_prompts, score_question


@dataclass(frozen=True)
class FewshotChoiceScorer:
    """A teacher's scores as the training rows have them: the mean over the same prompts."""

    prompts: LabelPrompts
    choices: list[str] | None
    """None where questions bring their own."""
    offsets: list[float]
    """Per choice, subtracted from its log-probability; zeros where raw scores do better, and none
    where questions bring their choices."""
    premise: bool = False
    """Whether the scores of an empty question are subtracted, of choices that questions bring."""

    async def score(self, engine: Engine, question: str, choices: list[str]) -> LabelScores:
        """Log-probabilities of the choices, less an empty question's where that is wanted."""
        scores = await score_question(self.prompts, engine, question, choices)
        if not self.premise or scores.error:
            return scores
        free = await score_question(self.prompts, engine, "", choices)
        if free.error:
            return free
        less = [one - other for one, other in zip(scores.logprobs, free.logprobs, strict=True)]
        return replace(scores, logprobs=less, usage=scores.usage + free.usage)


def fewshot_choice_scorer(context: StageContext) -> FewshotChoiceScorer:
    """The teacher's scoring, in the setting that was measured to be its best.

    Settings: `teacher`, and those of `pipelines.scoring.score`.
    Inputs: `examples`, task rows; `predicted`, the teacher's predictions.
    """
    task = context.recipe.student_recipe.task
    examples = context.inputs["examples"].read().to_pylist()
    prompts = label_prompts(task, examples, **asked_by(context.settings))
    teacher = context.settings["teacher"]
    manifest = context.inputs["predicted"].manifest()
    assert manifest is not None
    accuracy = manifest.facts["accuracy"]
    calibrate = accuracy.get(f"{teacher} calibrated", 0.0) > accuracy[f"{teacher} raw"]
    if task.choices is None:
        return FewshotChoiceScorer(prompts, None, [], premise=calibrate)
    offsets = [0.0] * len(task.choices)
    if calibrate:
        offsets = content_free_offsets(prompts, context.engine(teacher), task.choices)
    return FewshotChoiceScorer(prompts, task.choices, offsets)
