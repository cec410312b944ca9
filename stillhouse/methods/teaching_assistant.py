"""A teaching assistant between a student and a teacher that costs much (2406.05322).

draw ─ ask-warm-up ─ teach-warm-up ─ warm-up-NAME ─ sample ─ assess-student ─ acquire ─ ask
                                          │                                             │
                                          └─ train-NAME ─── teach ─── assess-teacher ───┘

The student learns from a few rows that are drawn, and then answers all others several times. Where
it agrees with itself least, and the assistant trusts it least, the teacher is asked, until its
budget is spent. What the assistant trusts of the teacher's answers is learnt, from the warm-up's
weights on. What of this is the paper's and what is ours stands in docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from core.recipe import LoadedRecipe
from core.recipe_assistance import Assist
from core.recipe_prompts import Prompt, as_prompt
from core.recipe_rationales import RationaleLimits
from core.recipe_students import Student
from core.recipe_teachers import RecordedTeacher, Teacher
from pipelines.prompt_library import resolved
from pipelines.student_samples import Drawing
from pipelines.teacher_budget import Call
from stillhouse.asking import Ask, ask_stage, prompt_files
from stillhouse.distilling import (
    Evaluation,
    OneSetRecipe,
)
from stillhouse.part_layout import PartLayout
from stillhouse.stages import Stage

WARM_UP = "ask-warm-up"
"""The stage in which the teacher is asked about the rows of the warm-up."""


class TeachingAssistantRecipe(OneSetRecipe):
    """A recipe of this method."""

    method: Literal["teaching_assistant"]
    assist: Assist
    """The assistant, the budget, and what becomes of both."""
    evaluation: Evaluation | None = None
    """What models are judged on; nothing if absent. What the teacher answers to these rows is no
    part of its budget."""
    rationales: RationaleLimits = RationaleLimits()
    """Which rationales the student learns, of those that the teacher wrote."""

    @property
    def teacher(self) -> str:
        """Who is asked."""
        return next(iter(self.ask))

    @property
    def student(self) -> tuple[str, Student]:
        """Who learns: its name and its section."""
        return next(iter(self.students.items()))

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        prompt = self.assist.confidence.prompt
        named = {} if prompt is None else {"assist.confidence.prompt": as_prompt(prompt)}
        return {**prompt_files(named), **super().files()}

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if len(self.ask) > 1:
            raise ValueError("ask has several teachers, and one budget is of one: keep one")
        if len(self.students) > 1:
            raise ValueError(
                "students has several, and what is asked follows from one student's answers: keep "
                "one"
            )
        if self.compare is not None:
            raise ValueError("compare is not for teaching_assistant: a recipe of frontier has it")
        name, student = self.student
        if student.objective.kind != "sequence":
            raise ValueError(
                f"students.{name} must write and learn by sequences: its own answers are drawn"
            )
        return self

    @model_validator(mode="after")
    def _answers_can_be_compared(self) -> Self:
        if not self.task.extracts:
            raise ValueError("task.answer is missing: it says which answers count as the same")
        if self.task.labels == "gold" or self.task.weight != "equal":
            raise ValueError(
                "task.labels must be teacher and task.weight equal: assist.trust says what counts"
            )
        if self.assist.trust.by == "gold" and self.task.gold is None:
            raise ValueError(
                "assist.trust.by is gold: name the field of right answers in task.gold"
            )
        return self

    @model_validator(mode="after")
    def _assistant_can_assess(self) -> Self:
        assist = self.assist
        section = self.teachers.get(assist.teacher)
        if section is None:
            known = ", ".join(self.teachers)
            raise ValueError(f"assist.teacher is '{assist.teacher}', but teachers has: {known}")
        if assist.confidence.by == "likelihood" and not isinstance(section, Teacher):
            raise ValueError(
                "assist.confidence.by is likelihood, for which the assistant scores a given text: "
                "it must run on vllm"
            )
        if isinstance(section, RecordedTeacher) and section.columns.labels is None:
            raise ValueError(
                f"teachers.{assist.teacher} has recorded no scores of words, and assists: name "
                "columns.labels, or take a model that runs"
            )
        return self

    @model_validator(mode="after")
    def _budget_holds_a_row(self) -> Self:
        calls, samples = self.assist.budget.calls, self.ask[self.teacher].samples
        if calls is not None and calls < samples:
            raise ValueError(
                f"assist.budget.calls is {calls}, and a row takes {samples}: raise it, or lower "
                f"ask.{self.teacher}.samples"
            )
        return self

    def written(self, folder: Path, place: Callable[[str], str]) -> dict[str, Any]:
        """Also the assistant's."""
        confidence = self.assist.confidence
        said = confidence.prompt or Prompt(library=confidence.by)
        key = "assist.confidence.prompt"
        prompt = resolved(said, "assistance", folder, None, key=key, place=place)
        shown = {"confidence": confidence.model_copy(update={"prompt": prompt})}
        assist = self.assist.model_copy(update=shown)
        return {**super().written(folder, place), "assist": assist}


@dataclass(frozen=True)
class AssistedLayout(PartLayout):
    """Lays out the stages: what is not wanted for one of the signals is left out."""

    recipe: TeachingAssistantRecipe

    def stages(self) -> list[Stage]:
        """All of them, each after the ones that it reads."""
        recipe, part, assist = self.recipe, self.part, self.recipe.assist
        name, student = recipe.student
        layout, rows = self.read()
        taught: dict[str, str] = {}
        if assist.warm_up:
            taught = {"rows-warm-up": "draw", "answers-warm-up": WARM_UP}
            layout += self._warm_up(rows, taught)
        if assist.warm_up < 1:
            layout += self._acquire(rows)
            taught |= {"rows": "acquire", "answers": "ask"}
        if assist.trust.asks_assistant:
            layout.append(self._assess("teacher", taught, answers=self.answers("elaborate")))
        layout.append(self._teach("teach", taught, assessed=assist.trust.asks_assistant))
        train = self.train(name, student, "teach")
        layout.append(replace(train, inputs={**train.inputs, **self._warm("start")}))
        if part.evaluation is not None:
            layout += self._judge(name, student)
        return layout

    def _warm_up(self, rows: str, taught: dict[str, str]) -> list[Stage]:
        """What the student learns before anybody looks at its answers."""
        recipe = self.recipe
        name, student = recipe.student
        draw = Stage(
            name="draw",
            run="pipelines.teacher_budget:draw_warm_up",
            ray=False,
            settings={**self._budget(), "share": recipe.assist.warm_up},
            inputs={"inputs": rows},
            files=self._price_book(),
        )
        asking = ask_stage(WARM_UP, recipe, self._asks(), "draw")
        teach = self._teach("teach-warm-up", taught, by="everything")
        warmed = replace(self.train(name, student, teach.name), name=f"warm-up-{name}")
        return [draw, asking, teach, warmed]

    def _acquire(self, rows: str) -> list[Stage]:
        """What else is asked, and how it is found."""
        recipe, acquire = self.recipe, self.recipe.assist.acquire
        taught = {"taught": "draw"} if recipe.assist.warm_up else {}
        answers = {"answers": WARM_UP} if recipe.assist.warm_up else {}
        layout, by = [], {"rows": rows}
        if acquire.by == "signals":
            layout.append(self._sample(rows, taught))
            by = {"sampled": "sample"}
            if acquire.asks_assistant:
                layout.append(self._assess("student", {"sampled": "sample"}))
                by["assessed"] = "assess-student"
        layout.append(
            Stage(
                name="acquire",
                run="pipelines.acquiring:acquire",
                ray=False,
                settings={**self._budget(), **acquire.model_dump()},
                inputs={**by, **taught, **answers},
                files=self._price_book(),
            )
        )
        # No `asks`: a sample of it would want a student that has been warmed up.
        return [*layout, replace(ask_stage("ask", recipe, self._asks(), "acquire"), asks={})]

    def _sample(self, rows: str, taught: dict[str, str]) -> Stage:
        recipe = self.recipe
        _, student = recipe.student
        train, wanted = student.train, recipe.assist.consistency
        drawing = Drawing(
            samples=wanted.samples,
            temperature=wanted.temperature,
            max_tokens=wanted.max_tokens or train.max_answer_length,
            seed=recipe.seed,
        )
        return Stage(
            name="sample",
            run="pipelines.consistency:sample_student",
            settings={
                "task": self.read_by(),
                "family": student.family,
                "model": student.model,
                "device": train.device.model_dump(),
                "drawing": asdict(drawing),
                "max_length": train.max_length,
            },
            inputs={"rows": rows, **taught, **self._warm("student")},
            models=[] if taught else [student.model],
            holds={"GPU": 1.0} if train.device.gpus else {},
        )

    def _assess(self, whose: str, rows: dict[str, str], **more: Any) -> Stage:
        """The stage in which the assistant judges answers; it judges them one by one."""
        assist = self.recipe.assist
        confidence = assist.confidence
        assert confidence.prompt is not None, "set when the recipe was loaded"
        prompt = as_prompt(confidence.prompt)
        return Stage(
            name=f"assess-{whose}",
            run=f"pipelines.assessing:assess_{whose}",
            ray=False,
            settings={
                "assistant": assist.teacher,
                "task": self.read_by(),
                "user": prompt.text,
                "system": prompt.system,
                "by": confidence.by,
                "words": [confidence.yes, confidence.no],
                **more,
            },
            growing=rows,
            teachers=[assist.teacher],
        )

    def _teach(
        self, name: str, taught: dict[str, str], *, by: str | None = None, assessed: bool = False
    ) -> Stage:
        """The stage that makes training rows, of all answers or as the recipe trusts them."""
        recipe, trust = self.recipe, self.recipe.assist.trust
        wanted = bool(recipe.wanted_rationales())
        return Stage(
            name=name,
            run="pipelines.teaching:teach",
            ray=False,
            settings={
                "task": self.read_by(),
                "answers": self.answers("elaborate"),
                "trust": {
                    "by": by or trust.by,
                    "threshold": None if by else trust.threshold,
                    "share": None if by else trust.share,
                },
                "rationales": recipe.rationales.model_dump() if wanted else None,
                "teacher": recipe.teacher,
            },
            inputs={**taught, **({"assessed": "assess-teacher"} if assessed else {})},
        )

    def _judge(self, name: str, student: Student) -> list[Stage]:
        """The stages in which models answer the evaluation rows."""
        recipe, evaluation = self.recipe, self.part.evaluation
        layout = []
        if evaluation is not None and evaluation.teachers:
            asked = ask_stage("ask-evaluation", recipe, self._asks(), "evaluation")
            layout += [asked, self.judge_teachers("predict-teachers", asked.name)]
        if recipe.assist.warm_up:
            arm, warmed = f"{name}, warmed up", f"warm-up-{name}"
            layout.append(self.predict(f"predict-{name}-warm-up", arm, student, trained=warmed))
        return [*layout, self.judge_student(name, student)]

    def _warm(self, role: str) -> dict[str, str]:
        """The stage that warmed the student up, in a role; empty where none did."""
        name, _ = self.recipe.student
        return {role: f"warm-up-{name}"} if self.recipe.assist.warm_up else {}

    def _asks(self) -> dict[str, Ask]:
        return self.asks("elaborate")

    def _budget(self) -> dict[str, Any]:
        """What stages are told of the budget, of what a call is, and of the draw."""
        recipe = self.recipe
        ask = recipe.ask[recipe.teacher]
        prompt = as_prompt(ask.prompt)
        call = Call(
            teacher=recipe.teacher,
            user=prompt.text,
            system=prompt.system or ask.sampling.system,
            max_tokens=ask.sampling.max_tokens,
            samples=ask.samples,
        )
        budget = recipe.assist.budget
        told = asdict(call)
        if budget.money is None:  # what a call costs decides nothing
            told |= {"user": "", "system": "", "max_tokens": 0}
        return {"call": told, **budget.model_dump(), "seed": recipe.seed}

    def _price_book(self) -> list[str]:
        recipe = self.recipe
        return [recipe.prices] if recipe.prices and recipe.assist.budget.money is not None else []


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, TeachingAssistantRecipe)
    (part,) = recipe.parts()
    return AssistedLayout(recipe, part).stages()
