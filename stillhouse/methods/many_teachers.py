"""Many teachers (2402.04616): why the right answer is right, in the words of several teachers.

inputs ─ (curate) ─ show ─ ask ─ rationalize ─ train-NAME ─┐
evaluation ────────────────────────────────────────────────┴ predict-NAME
           └ show-evaluation ─ ask-evaluation ─ predict-teachers

Teachers see examples and, with teacher forcing, the right answer, and write why it is right.
Students learn the answer and each teacher's rationale as tasks of their own, each with its prefix
and weight, and answer without a rationale. The baselines of the paper are the same recipe with
other values: without rationales, with LoRA, with the teachers' own answers as labels, or with
students as they come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from pydantic import model_validator

from core.recipe import LoadedRecipe
from core.recipe_answers import AnswerTask
from core.recipe_in_context import InContext
from core.recipe_rationales import ForcedRationales
from core.recipe_section import Name
from stillhouse.arms import teacher_arm
from stillhouse.asking import Ask, Inputs, ask_stage, read_file
from stillhouse.distilling import (
    OneSetRecipe,
)
from stillhouse.part_layout import EXTRACT, PREDICT_TEACHERS, PartLayout
from stillhouse.stages import Stage


class ManyTeachersRecipe(OneSetRecipe):
    """A recipe of this method."""

    method: Literal["many_teachers"]
    task: AnswerTask
    """What students are asked, and what is a right answer. With `labels: gold` they learn those of
    the file, as in the paper; with `labels: teacher` what teachers answer by themselves, which is
    its baseline of standard distillation."""
    in_context: InContext = InContext()
    """Examples that teachers see."""
    teacher_forcing: bool = True
    """Whether teachers see the right answer that they are to explain. Evaluation rows are answered
    without it in any case."""
    answering: list[Name] | None = None
    """Teachers that can be asked without the right answer, where their own is wanted: for
    evaluation rows, and for `task.labels: teacher`. Not those whose recorded answers were written
    beside it. All of `ask` if absent."""
    rationales: ForcedRationales = ForcedRationales()
    """Which rationales students learn, of those that teachers wrote."""
    undistilled: bool = False
    """Students answer the evaluation rows as they come, and nothing is learnt: the baseline that
    the paper calls zero-shot."""

    @property
    def asked(self) -> list[str]:
        """The teachers that are asked about the rows that students learn from."""
        if self.task.labels == "teacher":
            return self.asked_alone
        wanted = self.wanted_rationales()
        return [name for name in self.ask if name in wanted]

    @property
    def asked_alone(self) -> list[str]:
        """Those that are asked without the right answer."""
        return [name for name in self.ask if self.answering is None or name in self.answering]

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        shown = {} if self.in_context.file is None else {"in_context.file": self.in_context.file}
        return {**shown, **super().files()}

    @model_validator(mode="after")
    def _labels_are_known(self) -> Self:
        if self.task.converses:
            raise ValueError("task.kind is chat: no reply of it is right, so none can be explained")
        if self.task.labels == "teacher" and self.wanted_rationales():
            raise ValueError(
                "task.labels is teacher, and students learn rationales of the right answer: set "
                "task.labels to gold, or rationale_weights to {}; the method frontier has both"
            )
        if self.task.labels == "teacher" and self.teacher_forcing:
            raise ValueError(
                "task.labels is teacher, and teachers see the right answer: set teacher_forcing to "
                "false, or task.labels to gold"
            )
        return self

    @model_validator(mode="after")
    def _answering_are_asked(self) -> Self:
        unknown = set(self.answering or []) - set(self.ask)
        if unknown:
            raise ValueError(f"answering has '{min(unknown)}', whom ask does not ask")
        teaches = self.task.labels == "teacher" or bool(
            self.evaluation and self.evaluation.teachers
        )
        if teaches and not self.asked_alone:
            raise ValueError(
                "answering is empty, and teachers' own answers are wanted: by task.labels, or by "
                "evaluation.teachers"
            )
        return self

    @model_validator(mode="after")
    def _students_write(self) -> Self:
        for name, student in self.students.items():
            if student.objective.kind != "sequence":
                raise ValueError(
                    f"students.{name} must write and learn by sequences: it is a task of its own "
                    "to write a rationale"
                )
        if self.compare is not None:
            raise ValueError(
                "compare is not for many_teachers: a prompt of frontier can be compared"
            )
        if self.undistilled and self.evaluation is None:
            raise ValueError(
                "undistilled students are compared on evaluation rows: give evaluation"
            )
        return self


@dataclass(frozen=True)
class ManyTeachersLayout(PartLayout):
    """Lays out the stages."""

    recipe: ManyTeachersRecipe

    def stages(self) -> list[Stage]:
        """All of them, each after the ones that it reads."""
        recipe, part = self.recipe, self.part
        if recipe.undistilled:
            assert part.evaluation is not None, "the recipe was checked"
            judged_on = read_file("evaluation", part.evaluation, recipe.limit)
            return [judged_on, *(self._untrained(name) for name in recipe.students)]
        layout, rows = self.read()
        pool = rows
        if recipe.in_context.file is not None:
            pool = "examples"
            layout.append(read_file(pool, Inputs(file=recipe.in_context.file), None))
        asked = {}
        if recipe.asked:
            layout += [
                self._show("show", rows, pool, forced=recipe.teacher_forcing),
                ask_stage("ask", recipe, self._asks(recipe.asked), "show"),
            ]
            rows, asked = "show", {"answers": "ask"}
        if part.evaluation is not None and part.evaluation.teachers:
            layout += self._ask_about_evaluation(pool)
        learnt = self._training_rows(rows, asked)
        layout.append(learnt)
        for name, student in recipe.students.items():
            layout.append(self.train(name, student, learnt.name))
            if part.evaluation is not None:
                layout.append(self.judge_student(name, student))
        return layout

    def _show(self, name: str, rows: str, pool: str, *, forced: bool) -> Stage:
        """The stage that puts examples, and the right answer, beside rows."""
        recipe = self.recipe
        by_meaning = recipe.in_context.examples > 0 and recipe.in_context.chosen == "nearest"
        return Stage(
            name=name,
            run="pipelines.in_context:show",
            ray=by_meaning,
            settings={
                "task": recipe.task.model_dump(),
                "in_context": recipe.in_context.model_dump(exclude={"file"}),
                "forced": forced,
                "seed": recipe.seed,
            },
            inputs={"inputs": rows, "pool": pool},
            models=[recipe.in_context.embedding] if by_meaning else [],
        )

    def _asks(self, names: list[str]) -> dict[str, Ask]:
        known = self.asks("elaborate")
        return {name: known[name] for name in names}

    def _ask_about_evaluation(self, pool: str) -> list[Stage]:
        """The stages in which teachers answer the evaluation rows, and are judged."""
        recipe = self.recipe
        names = recipe.asked_alone
        answers = self.answers("elaborate")
        return [
            self._show("show-evaluation", "evaluation", pool, forced=False),
            ask_stage("ask-evaluation", recipe, self._asks(names), "show-evaluation"),
            Stage(
                name="predict-teachers",
                run=PREDICT_TEACHERS,
                ray=False,
                settings={
                    "task": self.read_by(),
                    "answers": {name: answers[name] for name in names},
                    "arms": {name: teacher_arm(name, "elaborate") for name in names},
                },
                inputs={
                    "rows": "evaluation",
                    "shown": "show-evaluation",
                    "answers": "ask-evaluation",
                },
            ),
        ]

    def _training_rows(self, rows: str, asked: dict[str, str]) -> Stage:
        recipe = self.recipe
        answers = self.answers("elaborate")
        settings = {
            "task": recipe.task.model_dump(),
            "answers": {name: answers[name] for name in recipe.asked},
        }
        if recipe.task.labels == "teacher":
            return Stage(
                name=EXTRACT["text"],
                run="pipelines.extraction:extract",
                ray=False,
                settings=settings | {"form": "text"},
                inputs={"inputs": rows, **asked},
            )
        return Stage(
            name="rationalize",
            run="pipelines.teacher_rationales:rationalize",
            ray=False,
            settings=settings | {"rationales": recipe.rationales.model_dump()},
            inputs={"inputs": rows, **asked},
        )

    def _untrained(self, name: str) -> Stage:
        """A student that has learnt nothing, on the evaluation rows."""
        student = self.recipe.students[name]
        untrained = {
            "max_length": student.train.max_length,
            "max_answer_length": student.train.max_answer_length,
            "prompt": None,
        }
        stage = self.predict(f"predict-{name}", name, student, untrained=untrained)
        return replace(stage, predicts=name)


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, ManyTeachersRecipe)
    (part,) = recipe.parts()
    return ManyTeachersLayout(recipe, part).stages()
