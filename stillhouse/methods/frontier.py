"""Frontier distillation (2410.18588): teachers answer an elaborate prompt, students a plain one.

inputs ──────┬ curate ─ ask ─ extract ─ train-NAME ──┐
evaluation ──┴ ask-evaluation ─ predict-teachers     ├ predict-NAME
             └───────────────────────────────────────┴ compare-NAME

What a student learns is the answer alone that is found in what a teacher wrote, behind the plain
prompt (context distillation); one that writes may learn rationales as tasks of their own. Students
that write have a stage `extract-text`, as their training rows are of another kind.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.errors import UseError
from core.recipe import LoadedRecipe, TrainingRecipe
from core.recipe_answers import AnswerTask
from core.recipe_serving import MEASURED
from core.recipe_students import SequenceObjective, Student
from core.recipe_teachers import RecordedTeacher
from core.stage import StageContext, StageResult
from pipelines.prompt_files import compile_prompt
from stillhouse.asking import (
    AskingRecipe,
    CurateField,
    Inputs,
    ask_stage,
    curate_stage,
    read_file,
)
from stillhouse.stages import Stage, resources


class Evaluation(Inputs):
    """Rows with right answers that nothing is learnt from."""

    teachers: bool = True
    """Whether teachers answer them too, as they answer the rows that students learn from."""


class CurateQuestions(CurateField):
    """Which rows are worth asking about."""

    contamination_ngram: int | None = Field(default=8, ge=1)
    """Rows that share this many words in a row with an evaluation row are dropped, or all of its
    words where it has fewer; null does not look."""


class FrontierRecipe(AskingRecipe, TrainingRecipe):
    """A recipe of this method."""

    method: Literal["frontier"]
    curate: CurateQuestions | None = None
    """Which of the rows are worth asking about; all if absent."""
    task: AnswerTask
    """What students are asked, and how an answer is found in what a teacher wrote."""
    evaluation: Evaluation | None = None
    """What students are measured on; nothing if absent."""

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
        return self

    @property
    def choices(self) -> list[str]:
        """The answers of every row; empty where rows have choices of their own, or none."""
        return self.task.choices or []

    @property
    def asks(self) -> bool:
        """Whether teachers are asked about the rows that students learn from."""
        return self.task.labels == "teacher" or bool(self._wanted_rationales())

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        files = super().files()
        if self.evaluation is not None:
            files["evaluation.file"] = self.evaluation.file
        return files

    @model_validator(mode="after")
    def _prompt_is_a_template(self) -> Self:
        # Found only after the teachers are paid, it would be told too late.
        try:
            compile_prompt(self.task.prompt)
        except UseError as error:
            raise ValueError(f"task.prompt: {error.cause}") from None
        return self

    @model_validator(mode="after")
    def _evaluation_has_answers(self) -> Self:
        if self.evaluation is not None and self.task.gold is None:
            raise ValueError("evaluation needs the right answers: name their field in task.gold")
        return self

    @model_validator(mode="after")
    def _students_can_learn_it(self) -> Self:
        for name, student in self.students.items():
            fault = self._fault(student)
            if fault is not None:
                raise ValueError(f"students.{name} {fault}")
        return self

    @model_validator(mode="after")
    def _rationales_are_there(self) -> Self:
        wanted = self._wanted_rationales()
        unknown = wanted - set(self.ask)
        if unknown:
            raise ValueError(f"rationale_weights has '{min(unknown)}', whom ask does not ask")
        if wanted and (self.task.answer is None or self.task.answer.rationale_pattern is None):
            raise ValueError(
                "rationale_weights wants rationales: say in task.answer.rationale_pattern how one "
                "is found in what a teacher wrote"
            )
        return self

    def _wanted_rationales(self) -> set[str]:
        """The teachers whose rationales a student learns."""
        objectives = [student.objective for student in self.students.values()]
        return {
            teacher
            for objective in objectives
            if isinstance(objective, SequenceObjective)
            for teacher, weight in objective.rationale_weights.items()
            if weight
        }

    def _fault(self, student: Student) -> str | None:
        """Why a student cannot learn the task."""
        if student.family == "encoder":
            if self.task.kind == "text":
                return "is an encoder, which chooses, and task.kind is text"
            if student.head == "classes" and self.task.choices is None:
                return "has a head for one list of choices, and rows have their own: set head"
        if student.objective.kind == "logits":
            if self.task.extracts or self.task.labels == "gold":
                return (
                    "learns by logits, which are of the teacher's own text: it must be task.kind "
                    "text without task.answer, and task.labels teacher"
                )
            without = [name for name, ask in self.ask.items() if not ask.sampling.top_logprobs]
            if without:
                return f"learns by logits: set ask.{without[0]}.sampling.top_logprobs"
        return None


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, FrontierRecipe)
    layout = [read_file("inputs", recipe.inputs)]
    if recipe.evaluation is not None:
        layout.append(read_file("evaluation", recipe.evaluation))
    rows = "inputs"
    if recipe.curate is not None:
        ngram = recipe.curate.contamination_ngram if recipe.evaluation else None
        against = {"field": recipe.curate.field, "ngram": ngram} if ngram else None
        layout.append(curate_stage(recipe.curate, against))
        rows = "curate"
    if recipe.asks:
        layout.append(ask_stage("ask", recipe, rows))
    if recipe.evaluation is not None and recipe.evaluation.teachers:
        layout += _judge_teachers(recipe)
    students = recipe.students.items()
    for form in ("choices", "text"):
        some = {name: student for name, student in students if _form(student) == form}
        if some:
            layout.append(_extract(recipe, rows, form))
            for name, student in some.items():
                layout += _train(recipe, name, student)
    return layout


def _form(student: Student) -> str:
    """The kind of training rows that a student learns from."""
    return "choices" if student.family == "encoder" else "text"


EXTRACT = {"choices": "extract", "text": "extract-text"}
"""The stage of each kind of training rows."""


def _judge_teachers(recipe: FrontierRecipe) -> list[Stage]:
    return [
        ask_stage("ask-evaluation", recipe, "evaluation"),
        Stage(
            name="predict-teachers",
            run="pipelines.prediction:predict_teachers",
            ray=False,
            settings={"task": _read_by(recipe)},
            inputs={"rows": "evaluation", "answers": "ask-evaluation"},
        ),
    ]


def _read_by(recipe: FrontierRecipe) -> dict[str, object]:
    """The task, without what decides nothing about the reading of one answer."""
    return recipe.task.model_dump() | {"labels": "teacher", "weight": "equal"}


def _extract(recipe: FrontierRecipe, rows: str, form: str) -> Stage:
    return Stage(
        name=EXTRACT[form],
        run="pipelines.extraction:extract",
        ray=False,
        settings={"task": recipe.task.model_dump(), "form": form},
        inputs={"inputs": rows, **({"answers": "ask"} if recipe.asks else {})},
    )


def _train(recipe: FrontierRecipe, name: str, student: Student) -> list[Stage]:
    device, workers = student.train.device, student.train.worker_bounds.min
    train = Stage(
        name=f"train-{name}",
        run="training.stage:train",
        settings={"student": name, "section": student.model_dump(), "seed": recipe.seed},
        inputs={"rows": EXTRACT[_form(student)]},
        models=[student.model],
        holds=resources(device, workers),
    )
    if recipe.evaluation is None:
        return [train]
    predict = Stage(
        name=f"predict-{name}",
        run="pipelines.prediction:predict_student",
        settings={
            "student": name,
            "task": _read_by(recipe),
            "family": student.family,
            "device": device.model_dump(),
        },
        inputs={"student": train.name, "rows": "evaluation"},
        holds={"GPU": 1.0} if device.gpus and student.family != "encoder" else {},
        predicts=name,
    )
    if recipe.compare is None:
        return [train, predict]
    teacher = recipe.compared_teacher
    assert teacher is not None, "the recipe was checked"
    compare = Stage(
        name=f"compare-{name}",
        run="stillhouse.methods.frontier:compare",
        settings={
            "student": name,
            "teacher": teacher,
            "ask": recipe.ask[teacher].model_dump(),
            "task": _read_by(recipe),
            "held": recipe.teachers[teacher].model_dump(
                include={"device", "replicas", "environment", "base_url"}
            ),
            "seed": recipe.seed,
            "serve": recipe.serve.model_dump(include=MEASURED),
            "compare": recipe.compare.model_dump(exclude={"requests_per_day"}),
        },
        inputs={"student": train.name, "evaluation": "evaluation"},
        teachers=[teacher],
    )
    return [train, predict, compare]


def compare(context: StageContext) -> StageResult:
    """Stage: a teacher behind its elaborate prompt, a student behind the plain one, over HTTP."""
    import serving.stage
    from pipelines.compared_rows import compared_rows

    settings = context.settings
    task = AnswerTask.model_validate(settings["task"])
    rows = compared_rows(context.inputs["evaluation"], task, settings["ask"]["prompt"])
    return serving.stage.compare(context, compared(context), rows)


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
    reader, engine = AnswerReader(task), context.engine(settings["teacher"])
    ask = settings["ask"]
    sampling = Sampling(**{**ask["sampling"], "stop": tuple(ask["sampling"]["stop"])})
    teacher = Writer(
        settings["teacher"],
        engine.model,
        TextTeacher(engine, sampling, ask["samples"]),
        engine.device,
        engine.replicas,
        "teacher",
        lambda row: Request("/v1/completions", {"prompt": row["prompt"]}),
        TeacherJudge(reader),
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
        lambda row: Request("/v1/chat/completions", {"messages": task.messages(row["question"])}),
        StudentJudge(reader),
    )
    return {"teacher": teacher, "student": student}
