"""Few-shot multiple choice (2412.09807): a teacher writes and scores items, an encoder learns.

examples ─ write ──────┐
         └ write-json ─┴ clean ─ score ─ select ─ train ─ predict ─ compare
                                         evaluation rows ──┴─────────┘

The choices are the task's, or every row has its own; rows of other domains may be judged, too.
"""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from core.recipe import LoadedRecipe, RowFile, StudentRecipe
from core.recipe_curation import Curate
from core.recipe_section import Name, Section
from core.recipe_serving import MEASURED
from core.recipe_teachers import RecordedTeacher
from core.stage import StageContext, StageResult
from pipelines.datasets import DatasetFormat
from pipelines.item_ways import way_of
from pipelines.permutations import LETTERS, most_permutations
from stillhouse.stages import Stage, resources


class Sampling(Section):
    """How items are drawn from the teacher."""

    max_tokens: int = Field(default=48, ge=1)
    """Tokens of an item at most; one that is cut there is rejected."""
    temperature: float = Field(default=1.0, ge=0)
    """Of the generation; it is not the temperature of the soft labels."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that is drawn from; costly to compute on a CPU."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Tokens less likely than this share of the likeliest one are never drawn."""


class Write(Section):
    """One way of writing items."""

    rows: int = Field(ge=1)
    """Items asked for."""
    sampling: Sampling = Sampling()
    """How they are drawn."""


class WriteJson(Write):
    """Writing whole items as JSON."""

    structured: bool = True
    """Whether the teacher is held to a schema; otherwise what is no JSON is rejected and counted,
    as in 2412.09807."""


class Generate(Section):
    """What the teacher writes."""

    teacher: Name
    """Who writes."""
    decomposed: Write | None = None
    """Step by step: a question for a given answer; or, where items have choices of their own, a
    question, its right answer, and wrong ones."""
    json_items: WriteJson | None = Field(default=None, alias="json")
    """Whole items as JSON."""
    negatives: int = Field(default=3, ge=1, lt=len(LETTERS))
    """Wrong answers of an item, where items have choices of their own."""

    @model_validator(mode="after")
    def _something_is_written(self) -> Self:
        if self.decomposed is None and self.json_items is None:
            raise ValueError("there is neither decomposed nor json: nothing is written")
        return self


class Score(Section):
    """How the teacher scores choices."""

    teacher: Name
    """Who scores."""
    orders: int = Field(default=1, ge=1)
    """Orders of the examples over which a score is averaged; each costs a prefill."""
    labels: Literal["words", "letters", "texts"] = "words"
    """What stands for a choice: `words` scores the choice itself, which must be one token of the
    teacher; `letters` lists the choices in the prompt and scores the letter of each; `texts` scores
    all tokens of a choice, at a prefill for each, twice as many where rows have their own."""
    shots: int | None = Field(default=None, ge=0)
    """Examples of each subject in the prompts; all that the task has if absent."""
    permutations: int = Field(default=1, ge=1)
    """Orders in which listed choices are shown, for each order of the examples, over which a score
    is averaged; each costs a prefill. As many as there are choices show each one once under each
    letter; up to twice as many also reverse them."""
    scores: Literal["raw", "calibrated"] = "calibrated"
    """Which scores the student learns from; both are kept. Letters of choices that differ by row
    have raw ones alone."""

    @model_validator(mode="after")
    def _only_lists_are_permuted(self) -> Self:
        if self.labels != "letters" and self.permutations > 1:
            raise ValueError("permutations is for choices that are listed: set labels to letters")
        return self


class Select(Section):
    """Which scored items the student learns from."""

    agree: bool = True
    """Only those whose first choice is the one that they were written for."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """Only those whose first choice has at least this probability."""
    hard_label: Literal["teacher", "written"] = "teacher"
    """The label that is hard: the teacher's first choice, or that which the item was written for;
    they differ where `agree` is false."""
    most: int | None = Field(default=None, ge=0)
    """Items at most; 0 leaves the examples alone."""


class FewshotMcqaRecipe(StudentRecipe):
    """A recipe of this method."""

    method: Literal["fewshot_mcqa"]
    generate: Generate
    """What the teacher writes."""
    curate: Curate = Curate()
    """What of it is worth scoring."""
    score: Score
    """How it scores."""
    select: Select = Select()
    """What the student sees of it."""
    cross_domain: dict[Name, RowFile] = {}
    """By name: rows of other domains that students are judged on, too, with choices of their own.
    """

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        others = {f"cross_domain.{name}.file": one.file for name, one in self.cross_domain.items()}
        return {**others, **super().files()}

    @model_validator(mode="after")
    def _formats_are_known(self) -> Self:
        formats = {"task": self.task.format} | {
            f"cross_domain.{name}": one.format for name, one in self.cross_domain.items()
        }
        for key, name in formats.items():
            if name is not None and name not in get_args(DatasetFormat):
                known = ", ".join(get_args(DatasetFormat))
                raise ValueError(f"{key}.format is '{name}', but the known ones are: {known}")
        return self

    @model_validator(mode="after")
    def _own_choices_are_read(self) -> Self:
        if self.task.choices is not None:
            if self.cross_domain:
                raise ValueError("cross_domain is for tasks in which rows have their own choices")
            return self
        for name, student in self.students.items():
            if student.head != "choices":
                raise ValueError(
                    f"students.{name}.head is {student.head}, but task.choices is absent: rows "
                    "have choices of their own, which the head 'choices' reads"
                )
        if self.score.labels == "words":
            raise ValueError(
                "score.labels is words, of the task's choices; rows have choices of their own: "
                "set it to letters or to texts"
            )
        if self.score.labels == "letters" and self.score.scores == "calibrated":
            raise ValueError(
                "score.scores is calibrated, which letters of choices that differ by row are not: "
                "set it to raw"
            )
        return self

    @model_validator(mode="after")
    def _teachers_exist(self) -> Self:
        for section, name in (("generate", self.generate.teacher), ("score", self.score.teacher)):
            if name not in self.teachers:
                known = ", ".join(self.teachers)
                raise ValueError(f"{section}.teacher is '{name}', but teachers has: {known}")
        return self

    @model_validator(mode="after")
    def _choices_can_be_listed(self) -> Self:
        if self.task.choices is None:
            return self
        choices = len(self.task.choices)
        if self.score.labels == "letters" and choices > len(LETTERS):
            raise ValueError(f"score.labels is letters, which cannot stand for {choices} choices")
        most = most_permutations(choices)
        if self.score.permutations > most:
            raise ValueError(
                f"score.permutations is {self.score.permutations}, but {choices} choices are "
                f"shown in {most} ways at most: their rotations, and those of their reverse"
            )
        return self

    @model_validator(mode="after")
    def _writer_writes(self) -> Self:
        name = self.generate.teacher
        recorded = isinstance(self.teachers[name], RecordedTeacher)
        if recorded:
            raise ValueError(
                f"generate.teacher is '{name}', whose answers are recorded: it writes nothing new"
            )
        return self


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, FewshotMcqaRecipe)
    task = recipe.task.words
    own = recipe.task.choices is None
    generate, score = recipe.generate, recipe.score
    letters = score.labels == "letters"
    score_prompts = [f"fewshot_mcqa/score_{'letter' if letters else 'choice'}.j2"]
    asked = {
        "orders": score.orders,
        **({"permutations": score.permutations} if letters else {}),
        **({"whole": True} if score.labels == "texts" else {}),
        **({} if score.shots is None else {"shots": score.shots}),
    }

    def read(name: str, file: str, form: str | None, **some: int | None) -> Stage:
        return Stage(
            name=name,
            run="pipelines.tasks:read_rows",
            ray=False,
            settings={"file": file, "format": form, "shots": None, "limit": None, **some},
            files=[file],
            made_from={"choices": recipe.task.choices},
        )

    def write(name: str, mode: str, settings: Write) -> Stage:
        return Stage(
            name=name,
            run="pipelines.writing:write_items",
            ray=False,
            settings={
                "teacher": generate.teacher,
                "mode": mode,
                "sampling": settings.sampling.model_dump(),
                **({"structured": settings.structured} if isinstance(settings, WriteJson) else {}),
                **({"negatives": generate.negatives} if own else {}),
            },
            extent={"rows": settings.rows},
            inputs={"examples": "examples"},
            teachers=[generate.teacher],
            asks={generate.teacher: settings.rows},
            prompts=[
                f"fewshot_mcqa/{template}"
                for template in way_of(mode, generate.negatives if own else None).templates
            ],
            made_from={"task": task, "seed": recipe.seed},
        )

    def score_rows(name: str, rows: str) -> Stage:
        return Stage(
            name=name,
            run="pipelines.scoring:score",
            ray=False,
            settings={"teacher": score.teacher, **asked},
            inputs={"examples": "examples"},
            growing={"rows": rows},
            teachers=[score.teacher],
            asks={score.teacher: 1},
            prompts=score_prompts,
            made_from={"task": task},
        )

    layout = [
        read("examples", recipe.task.examples, recipe.task.format, shots=recipe.task.shots),
        read("evaluation", recipe.task.evaluation, recipe.task.format, limit=recipe.task.limit),
        *(
            read(f"evaluation-{name}", one.file, one.format, limit=one.limit)
            for name, one in recipe.cross_domain.items()
        ),
    ]
    written = {}
    if generate.decomposed is not None:
        layout.append(write("write", "decomposed", generate.decomposed))
        written["decomposed"] = "write"
    if generate.json_items is not None:
        layout.append(write("write-json", "json", generate.json_items))
        written["json"] = "write-json"
    # Without the check, another evaluation set does not clean again.
    looks = recipe.curate.contamination_ngram is not None
    held_against = {"evaluation": "evaluation"} if looks else {}
    layout += [
        Stage(
            name="clean",
            run="pipelines.curation:curate",
            ray=False,
            settings={**recipe.curate.model_dump(), "seed": recipe.seed},
            inputs={"examples": "examples", **held_against, **written},
        ),
        score_rows("score", "clean"),
        score_rows("score-evaluation", "evaluation"),
        Stage(
            name="predict-teacher",
            run="pipelines.evaluation:predict_teacher",
            ray=False,
            inputs={"scored": "score-evaluation", "rows": "evaluation"},
        ),
        Stage(
            name="select",
            run="pipelines.selection:select",
            ray=False,
            settings={"scores": score.scores, **recipe.select.model_dump()},
            inputs={"examples": "examples", "scored": "score", "items": "clean"},
        ),
        Stage(
            name="select-examples",
            run="pipelines.selection:select_examples",
            ray=False,
            inputs={"examples": "examples"},
        ),
    ]
    for name, student in recipe.students.items():
        for suffix, rows in (("", "select"), ("-examples-alone", "select-examples")):
            layout += [
                Stage(
                    name=f"train-{name}{suffix}",
                    run="training.stage:train",
                    settings={
                        "student": name,
                        "section": student.model_dump(),
                        "seed": recipe.seed,
                    },
                    inputs={"rows": rows},
                    models=[student.model],
                    holds=resources(student.train.device, student.train.worker_bounds.min),
                ),
                Stage(
                    name=f"predict-{name}{suffix}",
                    run="pipelines.evaluation:predict_student",
                    settings={"name": f"{name}{suffix}"},
                    inputs={"student": f"train-{name}{suffix}", "rows": "evaluation"},
                    predicts=f"{name}{suffix}",
                ),
                *(
                    Stage(
                        name=f"predict-{name}{suffix}-on-{other}",
                        run="pipelines.evaluation:predict_student",
                        settings={"name": f"{name}{suffix}"},
                        inputs={
                            "student": f"train-{name}{suffix}",
                            "rows": f"evaluation-{other}",
                        },
                    )
                    for other in recipe.cross_domain
                ),
            ]
        if isinstance(recipe.teachers[score.teacher], RecordedTeacher):
            continue  # nobody serves it: what a look-up takes says nothing about the teacher
        layout.append(
            Stage(
                name=f"compare-{name}",
                run="stillhouse.methods.fewshot_mcqa:compare",
                settings={
                    "student": name,
                    "teacher": score.teacher,
                    "held": recipe.teachers[score.teacher].model_dump(
                        include={"device", "replicas", "environment", "base_url"}
                    ),
                    **asked,
                    "seed": recipe.seed,
                    "serve": recipe.serve.model_dump(include=MEASURED),
                    "compare": recipe.compare.model_dump(exclude={"requests_per_day"}),
                },
                inputs={
                    "student": f"train-{name}",
                    "evaluation": "evaluation",
                    "examples": "examples",
                    "predicted": "predict-teacher",
                },
                teachers=[score.teacher],
                prompts=score_prompts,
            )
        )
    return layout


def compare(context: StageContext) -> StageResult:
    """Stage: teacher and student over HTTP; the teacher is asked as it was when it scored."""
    import serving.stage

    rows = context.inputs["evaluation"].read().to_pylist()
    return serving.stage.compare(context, compared(context), rows)


TEACHER_CHOOSES = True
"""Whether a comparison's teacher answers what callers ask, and can stand behind the student."""


def compared(context: StageContext) -> dict[str, Any]:
    """Teacher and student as they are compared: `serving.compared.Compared` by role."""
    from pipelines.teacher_scorer import fewshot_choice_scorer
    from serving.compared import Chooser, student_chooser
    from serving.teacher import PromptedTeacher

    name = context.settings["teacher"]
    engine = context.engine(name)
    teacher = PromptedTeacher(engine, fewshot_choice_scorer(context))
    return {
        "teacher": Chooser(name, engine.model, teacher, engine.device, engine.replicas, "teacher"),
        "student": student_chooser(context),
    }
