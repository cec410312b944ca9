"""What all stages of a data set have in common: who is asked what, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from core.recipe_prompts import Prompt, as_prompt
from core.recipe_students import Student
from core.spacy_pipelines import SPACY
from stillhouse.arms import Way, teacher_arm
from stillhouse.asking import Ask, Decided, curate_stage, read_file
from stillhouse.distilling import CurateQuestions, DistillingRecipe, LearningRecipe, Part
from stillhouse.stages import Stage, resources

PREDICT_TEACHERS = "pipelines.prediction:predict_teachers"
PREDICT_STUDENT = "pipelines.prediction:predict_student"
TRAIN = "training.stage:train"
EXTRACT = {"choices": "extract", "text": "extract-text"}
"""The stage of each kind of training rows."""

DENSITY = "pipelines.entity_density:score_density"


def form_of(student: Student) -> str:
    """The kind of training rows that a student learns from."""
    return "choices" if student.family == "encoder" else "text"


@dataclass(frozen=True)
class PartLayout:
    """Lays out the stages of a part of a recipe."""

    recipe: LearningRecipe
    part: Part

    def asks(self, way: Way) -> dict[str, Ask]:
        """By teacher: what it is asked."""
        plain, prompts = self.part.task.plain, self.part.prompts
        if way == "elaborate":
            return {n: a.model_copy(update={"prompt": prompts[n]}) for n, a in self._asked()}
        # A schema is the form of the elaborate prompt's answers.
        return {
            name: ask.model_copy(
                update={
                    "prompt": plain,
                    "sampling": ask.sampling.model_copy(update={"json_schema": None}),
                }
            )
            for name, ask in self._asked()
        }

    def _asked(self) -> Iterable[tuple[str, Ask]]:
        return self.recipe.ask.items()

    def answers(self, way: Way) -> dict[str, Any]:
        """By teacher: how its answers are read."""
        found = {
            name: self.part.task.plain.answer
            if way == "plain"
            else self.recipe.answer_of(self.part, name)
            for name in self.recipe.ask
        }
        return {name: answer and answer.model_dump() for name, answer in found.items()}

    def answer(self, prompt: str | Prompt) -> dict[str, Any] | None:
        """How what is written behind a prompt is read."""
        answer = as_prompt(prompt).answer or self.part.task.answer
        return None if answer is None else answer.model_dump()

    def read_by(self) -> dict[str, Any]:
        """The task, without what decides nothing about the reading of one answer."""
        return self.part.task.model_dump() | {"labels": "teacher", "weight": "equal"}

    def read(self) -> tuple[list[Stage], str]:
        """The stages that read the part's files, and which of them has the rows to ask about."""
        part, limit = self.part, self.recipe.limit
        layout = [read_file(part.stage("inputs"), part.inputs, limit)]
        if part.evaluation is not None:
            layout.append(read_file(part.stage("evaluation"), part.evaluation, limit))
        if part.curate is None:
            return layout, "inputs"
        return [*layout, self._curate(part.curate)], "curate"

    def _curate(self, curate: CurateQuestions) -> Stage:
        """The stage that says which rows are worth asking about."""
        part = self.part
        against = None
        if part.evaluation is not None and curate.contamination_ngram:
            against = {
                "stage": part.stage("evaluation"),
                "field": curate.field,
                "ngram": curate.contamination_ngram,
            }
        return curate_stage(part.stage("curate"), part.stage("inputs"), curate, against)

    def judged(self, stage: Stage) -> bool:
        """Whether a stage has answers to evaluation rows, and not to those that are chosen by."""
        return stage.inputs.get("rows") == self.part.stage("evaluation")

    def judge_teachers(self, name: str, answers: str, way: Way = "elaborate") -> Stage:
        """The stage in which teachers are judged on the evaluation rows.

        Args:
            name: The stage's.
            answers: The stage with what they answered.
            way: How they were asked.
        """
        return Stage(
            name=self.part.stage(name),
            run=PREDICT_TEACHERS,
            ray=False,
            settings={
                "task": self.read_by(),
                "answers": self.answers(way),
                "arms": {name: teacher_arm(name, way) for name in self.recipe.ask},
            },
            inputs={"rows": self.part.stage("evaluation"), "answers": answers},
        )

    def train(self, name: str, student: Student, rows: str, *, after: str = "") -> Stage:
        """The stage that trains a student.

        Args:
            name: The student's.
            student: Its section.
            rows: The stage with what it learns from.
            after: What the stage's name ends with.
        """
        return Stage(
            name=self.part.stage(f"train-{name}{after}"),
            run=TRAIN,
            settings={
                "student": name,
                "section": student.model_dump(),
                "seed": self.recipe.seed,
            },
            inputs={"rows": rows},
            models=[student.model],
            holds=resources(student.train.device, student.train.worker_bounds.min),
        )

    def judge_student(self, name: str, student: Student) -> Stage:
        """The stage in which a trained student answers the evaluation rows; ablations compare it.

        Args:
            name: The student's; there is one data set.
            student: Its section.
        """
        stage = self.predict(f"predict-{name}", name, student, trained=f"train-{name}")
        return replace(stage, predicts=name)

    def predict(
        self,
        name: str,
        arm: str,
        student: Student,
        trained: str = "",
        untrained: dict[str, Any] | None = None,
    ) -> Stage:
        """The stage in which a student answers the evaluation rows.

        Args:
            name: The stage's.
            arm: What the student is called in its answers.
            student: Its section.
            trained: The stage that trained it, if one did.
            untrained: Otherwise how it is asked, as of `pipelines.prediction.predict_student`.
        """
        device, evaluation = student.train.device, self.part.evaluation
        assert evaluation is not None, "there is nothing to be judged on otherwise"
        encoder = student.family == "encoder"
        return Stage(
            name=self.part.stage(name),
            run=PREDICT_STUDENT,
            settings={
                "arm": arm,
                "task": self.read_by(),
                "family": student.family,
                "model": student.model,
                "device": device.model_dump(),
                "untrained": untrained,
                # An encoder chooses anyway.
                **({} if encoder else {"score_choices": evaluation.score_choices}),
            },
            inputs={
                **({"student": trained} if trained else {}),
                "rows": self.part.stage("evaluation"),
            },
            models=[student.model] if untrained else [],
            holds={"GPU": 1.0} if device.gpus and not encoder else {},
        )


@dataclass(frozen=True)
class DistillingLayout(PartLayout):
    """The same of a recipe in which it may be chosen how teachers are asked."""

    recipe: DistillingRecipe

    def decided(self, way: Way) -> Decided | None:
        """What is chosen of how teachers are asked one way, and by which stage."""
        select, part = self.recipe.select, self.part
        if select is None:
            return None
        if way == "elaborate" and select.prompts:
            return Decided(part.stage("choose-prompt"), prompt=True)
        return Decided(part.stage("choose-sampling"), prompt=False)

    def chosen(self, way: Way) -> dict[str, str]:
        """The decision that the reading of answers goes by, if there is one."""
        decided = self.decided(way)
        return {"chosen": decided.stage} if decided and decided.prompt else {}

    def density_of(self, name: str, inputs: dict[str, str]) -> Stage:
        """The stage that measures what stands in its inputs."""
        settings = self.recipe.entity_density
        return Stage(
            name=self.part.stage(name),
            run=DENSITY,
            ray=False,
            settings={"task": self.read_by(), **settings.model_dump()},
            inputs=inputs,
            models=[f"{SPACY}{settings.pipeline}"],
        )
