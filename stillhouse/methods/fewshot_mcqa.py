"""Few-shot multiple choice (2412.09807): a teacher writes and scores items, an encoder learns.

examples ─ write ──────┐
         └ write-json ─┴ clean ─ score ─ select ─ train ─ predict ─ compare
                                         evaluation rows ──┴─────────┘
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.recipe import LoadedRecipe, StudentRecipe
from core.recipe_curation import Curate
from core.recipe_section import Name, Section
from core.recipe_serving import MEASURED
from core.recipe_teachers import RecordedTeacher
from core.stage import StageContext, StageResult
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


class Generate(Section):
    """What the teacher writes."""

    teacher: Name
    """Who writes."""
    decomposed: Write
    """Step by step: a question for a given answer."""
    json_items: Write | None = Field(default=None, alias="json")
    """Whole items as JSON, with structured decoding."""


class Score(Section):
    """How the teacher scores choices."""

    teacher: Name
    """Who scores."""
    orders: int = Field(default=1, ge=1)
    """Orders of the examples over which a score is averaged; each costs a prefill."""
    labels: Literal["words", "letters"] = "words"
    """What stands for a choice: `words` scores the choice itself, which must be one token of the
    teacher; `letters` lists the choices in the prompt and scores the letter of each."""
    permutations: int = Field(default=1, ge=1)
    """Orders in which listed choices are shown, for each order of the examples, over which a score
    is averaged; each costs a prefill. As many as there are choices show each one once under each
    letter; up to twice as many also reverse them."""
    scores: Literal["raw", "calibrated"] = "calibrated"
    """Which scores the student learns from; both are kept."""

    @model_validator(mode="after")
    def _only_lists_are_permuted(self) -> Self:
        if self.labels == "words" and self.permutations > 1:
            raise ValueError("permutations is for choices that are listed: set labels to letters")
        return self


class Select(Section):
    """Which scored items the student learns from."""

    agree: bool = True
    """Only those whose first choice is the one that they were written for."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """Only those whose first choice has at least this probability."""


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

    @model_validator(mode="after")
    def _teachers_exist(self) -> Self:
        for section, name in (("generate", self.generate.teacher), ("score", self.score.teacher)):
            if name not in self.teachers:
                known = ", ".join(self.teachers)
                raise ValueError(f"{section}.teacher is '{name}', but teachers has: {known}")
        return self

    @model_validator(mode="after")
    def _choices_can_be_listed(self) -> Self:
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
    task = recipe.task.model_dump(exclude={"examples", "evaluation"})
    generate, score = recipe.generate, recipe.score
    letters = score.labels == "letters"
    score_prompts = [f"fewshot_mcqa/score_{'letter' if letters else 'choice'}.j2"]

    def write(name: str, mode: str, settings: Write) -> Stage:
        return Stage(
            name=name,
            run="pipelines.writing:write_items",
            ray=False,
            settings={
                "teacher": generate.teacher,
                "mode": mode,
                "sampling": settings.sampling.model_dump(),
            },
            extent={"rows": settings.rows},
            inputs={"examples": "examples"},
            teachers=[generate.teacher],
            asks={generate.teacher: settings.rows},
            prompts=[f"fewshot_mcqa/write_{'json' if mode == 'json' else 'question'}.j2"],
            made_from={"task": task, "seed": recipe.seed},
        )

    def score_rows(name: str, rows: str) -> Stage:
        return Stage(
            name=name,
            run="pipelines.scoring:score",
            ray=False,
            settings={
                "teacher": score.teacher,
                "orders": score.orders,
                **({"permutations": score.permutations} if letters else {}),
            },
            inputs={"examples": "examples"},
            growing={"rows": rows},
            teachers=[score.teacher],
            asks={score.teacher: 1},
            prompts=score_prompts,
            made_from={"task": task},
        )

    layout = [
        Stage(
            name="examples",
            run="pipelines.tasks:read_rows",
            ray=False,
            settings={"file": recipe.task.examples},
            files=[recipe.task.examples],
            made_from={"choices": recipe.task.choices},
        ),
        Stage(
            name="evaluation",
            run="pipelines.tasks:read_rows",
            ray=False,
            settings={"file": recipe.task.evaluation},
            files=[recipe.task.evaluation],
            made_from={"choices": recipe.task.choices},
        ),
        write("write", "decomposed", generate.decomposed),
    ]
    written = {"decomposed": "write"}
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
                    "orders": score.orders,
                    **({"permutations": score.permutations} if letters else {}),
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
