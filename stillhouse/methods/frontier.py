"""Frontier distillation (2410.18588): teachers answer an elaborate prompt, students a plain one.

One data set; `stillhouse.distilling_stages` has the stages. `frontier_study` is the same on
several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from core.recipe import LoadedRecipe
from core.recipe_answers import AnswerTask
from core.recipe_prompts import Answer
from core.recipe_serving import MEASURED
from core.recipe_teachers import RecordedTeacher
from core.stage import StageContext, StageResult
from stillhouse.asking import Inputs, asked_texts
from stillhouse.distilling import (
    DistillingRecipe,
    OneSetRecipe,
    Part,
    resolve_judges,
    resolve_variants,
)
from stillhouse.distilling_stages import stages_of
from stillhouse.part_layout import DistillingLayout
from stillhouse.stages import Stage


class FrontierRecipe(OneSetRecipe, DistillingRecipe):
    """A recipe of this method."""

    method: Literal["frontier"]
    selection: Inputs | None = None
    """Where `select` draws its rows from; from `inputs` if absent."""

    @property
    def compared_teacher(self) -> str | None:
        """The first teacher that can be served; nobody serves recorded answers."""
        return next(
            (one for one in self.ask if not isinstance(self.teachers[one], RecordedTeacher)), None
        )

    @model_validator(mode="after")
    def _somebody_is_compared(self) -> Self:
        if self.compare is not None:
            if self.evaluation is None:
                raise ValueError("compare needs rows with right answers: give a section evaluation")
            if self.compared_teacher is None:
                raise ValueError("compare needs a teacher that can be served, and all are recorded")
            if self.task.measure != "accuracy":
                raise ValueError("compare judges by right answers, and task.metric is another")
        return self

    def parts(self) -> list[Part]:
        """The one data set, and what is tried on it first."""
        (part,) = super().parts()
        variants = dict(self.select.prompts) if self.select else {}
        return [replace(part, selection=self.selection, variants=variants)]

    def written(self, folder: Path, place: Callable[[str], str]) -> dict[str, Any]:
        """Also judges', and those that may be chosen."""
        changed = super().written(folder, place)
        changed["judges"] = resolve_judges(self.judges, folder, place)
        if self.select is not None:
            (part,) = self.parts()
            variants = resolve_variants(part, folder, place)
            changed["select"] = self.select.model_copy(update={"prompts": variants})
        return changed


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, FrontierRecipe)
    (part,) = recipe.parts()
    layout = stages_of(recipe, part)
    if recipe.compare is None:
        return layout
    return [*layout, *(_compare(recipe, part, name) for name in recipe.students)]


def _compare(recipe: FrontierRecipe, part: Part, name: str) -> Stage:
    """The stage in which a student is compared with a teacher over HTTP."""
    assert recipe.compare is not None, "there is something to compare"
    layout, teacher = DistillingLayout(recipe, part), recipe.compared_teacher
    assert teacher is not None, "the recipe was checked"
    ask, decided = layout.asks("elaborate")[teacher], layout.decided("elaborate")
    return Stage(
        name=f"compare-{name}",
        run="stillhouse.methods.frontier:compare",
        settings={
            "student": name,
            "teacher": teacher,
            "ask": {
                "prompt": asked_texts(ask.prompt),
                "answer": layout.answer(ask.prompt),
                "sampling": ask.sampling.model_dump(),
                "samples": ask.samples,
            },
            "task": layout.read_by(),
            "held": recipe.teachers[teacher].model_dump(
                include={"device", "replicas", "environment", "base_url"}
            ),
            "seed": recipe.seed,
            "serve": recipe.serve.model_dump(include=MEASURED),
            "compare": recipe.compare.model_dump(exclude={"requests_per_day"}),
        },
        inputs={"student": f"train-{name}", "evaluation": "evaluation"},
        decisions={} if decided is None else {"chosen": decided.stage},
        teachers=[teacher],
    )


def compare(context: StageContext) -> StageResult:
    """Stage: a teacher behind its elaborate prompt, a student behind the plain one, over HTTP."""
    import serving.stage
    from pipelines.compared_rows import compared_rows

    task = AnswerTask.model_validate(context.settings["task"])
    rows = compared_rows(context.inputs["evaluation"], task, _asked(context)["prompt"])
    return serving.stage.compare(context, compared(context), rows)


def _asked(context: StageContext) -> dict[str, Any]:
    """How the teacher is asked: as the recipe says, or as was chosen."""
    from pipelines.choosing import chosen_of

    chosen = chosen_of(context).get(context.settings["teacher"], {})
    return {**context.settings["ask"], **chosen}


TEACHER_CHOOSES = False
"""Its prompts are filled in with a row's fields, which callers do not send."""


def compared(context: StageContext) -> dict[str, Any]:
    """Teacher and student as they are compared: `serving.compared.Compared` by role."""
    from core.teacher import Sampling
    from pipelines.answers import AnswerReader
    from pipelines.compared_rows import StudentJudge, TeacherJudge
    from serving.compared import Writer, student_chooser
    from serving.load import Request
    from serving.text_teacher import TextTeacher
    from serving.writers import writing_student

    settings, recipe = context.settings, context.recipe.training_recipe
    task = AnswerTask.model_validate(settings["task"])
    engine, ask = context.engine(settings["teacher"]), _asked(context)
    answer = ask["answer"] and Answer.model_validate(ask["answer"])
    sampling = Sampling(**{**ask["sampling"], "stop": tuple(ask["sampling"]["stop"])})
    if not isinstance(ask["prompt"], str):
        sampling = replace(sampling, system=ask["prompt"]["system"])
    teacher = Writer(
        settings["teacher"],
        engine.model,
        TextTeacher(engine, sampling, ask["samples"]),
        engine.device,
        engine.replicas,
        "teacher",
        lambda row: Request("/v1/completions", {"prompt": row["prompt"]}),
        TeacherJudge(AnswerReader(task, answer)),
    )
    name = settings["student"]
    if recipe.students[name].family == "encoder":
        return {"teacher": teacher, "student": student_chooser(context)}
    folder = context.inputs["student"].folder.child("student").location
    student = Writer(
        name,
        name,
        writing_student(folder),
        recipe.serve.device,
        max(1, recipe.serve.scale.min),
        "student",
        lambda row: Request("/v1/chat/completions", {"messages": row["messages"]}),
        StudentJudge(AnswerReader(task, task.plain.answer)),
    )
    return {"teacher": teacher, "student": student}
