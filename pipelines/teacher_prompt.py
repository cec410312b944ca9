"""How the serving room asks a teacher over HTTP: prompt, labels and calibration in one object."""

from __future__ import annotations

from dataclasses import dataclass

from core.stage import StageContext
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.label_prompts import LabelPrompts
from pipelines.scoring import content_free_offsets


@dataclass(frozen=True)
class FewshotChoicePrompt:
    """The first of the prompts that scored the training rows: in it nothing is permuted."""

    prompts: LabelPrompts
    choices: list[str]
    labels: list[str]
    """What follows the prompt, one per choice, each a single token of the teacher."""
    offsets: list[float]
    """Per choice, subtracted from its log-probability; zeros where raw scores do better."""

    def prompt(self, question: str) -> str:
        """The prompt for one question."""
        return self.prompts.ask(question, self.choices)[0].text


def fewshot_choice_prompt(context: StageContext) -> FewshotChoicePrompt:
    """The teacher's fastest exact scoring, in the setting that was measured to be its best.

    Settings: `teacher`; `permutations`, where the labels are letters.
    Inputs: `examples`, task rows; `predicted`, the teacher's predictions.
    """
    task = context.recipe.student_recipe.task
    prompts = LabelPrompts(
        FewshotPrompts(task, context.inputs["examples"].read().to_pylist()),
        orders=1,
        permutations=context.settings.get("permutations"),
    )
    teacher = context.settings["teacher"]
    manifest = context.inputs["predicted"].manifest()
    assert manifest is not None
    accuracy = manifest.facts["accuracy"]
    offsets = [0.0] * len(task.choices)
    if accuracy[f"{teacher} calibrated"] > accuracy[f"{teacher} raw"]:
        offsets = content_free_offsets(prompts, context.engine(teacher), task.choices)
    labels = prompts.ask("", task.choices)[0].labels
    return FewshotChoicePrompt(prompts, task.choices, labels, offsets)
