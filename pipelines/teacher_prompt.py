"""How the serving room asks a teacher over HTTP: prompt, labels and calibration in one object."""

from __future__ import annotations

from dataclasses import dataclass

from core.stage import StageContext
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.scoring import content_free_offsets


@dataclass(frozen=True)
class FewshotChoicePrompt:
    """The prompt that scored the training rows, with the examples in their first order."""

    prompts: FewshotPrompts
    labels: list[str]
    """What follows the prompt, one per choice, each a single token of the teacher."""
    offsets: list[float]
    """Per choice, subtracted from its log-probability; zeros where raw scores do better."""

    def prompt(self, question: str) -> str:
        """The prompt for one question."""
        return self.prompts.score_choice(question, 0)


def fewshot_choice_prompt(context: StageContext) -> FewshotChoicePrompt:
    """The teacher's fastest exact scoring, in the setting that was measured to be its best.

    Settings: `teacher`.
    Inputs: `examples`, task rows; `predicted`, the teacher's predictions.
    """
    prompts = FewshotPrompts(
        context.recipe.student_recipe.task, context.inputs["examples"].read().to_pylist()
    )
    teacher = context.settings["teacher"]
    manifest = context.inputs["predicted"].manifest()
    assert manifest is not None
    accuracy = manifest.facts["accuracy"]
    offsets = [0.0] * len(prompts.labels())
    if accuracy[f"{teacher} calibrated"] > accuracy[f"{teacher} raw"]:
        offsets = content_free_offsets(prompts, context.engine(teacher), orders=1)
    return FewshotChoicePrompt(prompts, prompts.labels(), offsets)
