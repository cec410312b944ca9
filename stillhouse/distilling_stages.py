"""The stages of the methods of 2410.18588.

Of one data set:

inputs ──────┬ curate ─ ask ─ extract ─ train-NAME ──┐
evaluation ──┴ ask-evaluation ─ predict-teachers     └ predict-NAME
             └───────────────────────────────────────┘

What a student learns is the answer alone that is found in what a teacher wrote behind an elaborate
prompt; it learns it behind the plain one (context distillation). Students that write have a stage
`extract-text`, as their training rows are of another kind. The arms beside that repeat parts of it:
`-plain` for the plain prompt in the teacher's place, `-undistilled` for students that have learnt
nothing yet.
"""

from __future__ import annotations

from dataclasses import replace

from core.recipe_prompts import Prompt, as_prompt
from core.recipe_students import Student
from stillhouse.arms import Way, student_arm, teacher_arm, untrained_arm
from stillhouse.asking import ask_stage
from stillhouse.distilling import DistillingRecipe, Part
from stillhouse.judging import COMPARE, RATE_ANSWERS, RATE_QUESTIONS, judge_stage
from stillhouse.part_layout import (
    EXTRACT,
    PREDICT_STUDENT,
    PREDICT_TEACHERS,
    DistillingLayout,
    form_of,
)
from stillhouse.selection_stages import Selection
from stillhouse.stages import Stage

NO_LIMIT = 1_000_000
"""Tokens of a prompt that may be as long as its model takes."""

AFTER = {"elaborate": "", "plain": "-plain"}
"""What the names of stages end with, by how teachers are asked."""


def stages_of(recipe: DistillingRecipe, part: Part) -> list[Stage]:
    """Lay out what is done with one data set."""
    return _Layout(recipe, part).stages()


class _Layout(DistillingLayout):
    """Lays out the stages of a data set."""

    def stages(self) -> list[Stage]:
        """All of them, each after the ones that it reads."""
        recipe, part = self.recipe, self.part
        layout, rows = self.read()
        layout += Selection(recipe, part).stages(rows)
        ways: list[Way] = ["elaborate", "plain"] if recipe.arms.plain_teacher else ["elaborate"]
        for way in ways:
            layout += self._teach(way, rows)
        if recipe.arms.undistilled:
            layout += [self._untrained(*named, None) for named in recipe.students.items()]
        if recipe.arms.undistilled_elaborate:
            prompt = as_prompt(next(iter(part.prompts.values())))
            layout += [
                self._untrained(*named, prompt)
                for named in recipe.students.items()
                if named[1].family != "encoder"
            ]
        if part.evaluation is not None and part.task.measure == "entity_density":
            layout += self._density(layout)
        return [*layout, *self._judge(layout)]

    def _judge(self, layout: list[Stage]) -> list[Stage]:
        """The stages in which judges are asked about what was written, or about the rows."""
        recipe, part, found = self.recipe, self.part, []
        choosing = {
            part.stage(f"predict-{name}{after}")
            for name, student in recipe.students.items()
            if student.family == "encoder"
            for after in ("", "-plain", "-undistilled")
        }
        written = {
            stage.name: stage.name
            for stage in layout
            if stage.run in (PREDICT_TEACHERS, PREDICT_STUDENT)
            and self.judged(stage)
            and stage.name not in choosing
        }
        for name, judge in recipe.judges.items():
            if part.evaluation is None or not judge.judges(part.name):
                continue
            scale = list(judge.scale)
            if judge.rates == "questions":
                rows = {"rows": part.stage("evaluation")}
                more = {"scale": scale, "criteria": judge.criteria, "task": self.read_by()}
                stage = part.stage(f"rate-{name}")
                found.append(judge_stage(stage, RATE_QUESTIONS, judge, recipe.seed, rows, **more))
                continue
            stage = part.stage(f"rate-{name}")
            found.append(judge_stage(stage, RATE_ANSWERS, judge, recipe.seed, written, scale=scale))
            pairs = self._pairs()
            if judge.pairs and pairs:
                stage = part.stage(f"prefer-{name}")
                found.append(judge_stage(stage, COMPARE, judge, recipe.seed, written, pairs=pairs))
        return found

    def _pairs(self) -> list[list[str]]:
        """The arms that are compared: each student beside itself and beside the first teacher."""
        arms, evaluation = self.recipe.arms, self.part.evaluation
        found = []
        for name, student in self.recipe.students.items():
            if student.family == "encoder":
                continue
            mine = student_arm(name, "elaborate")
            if arms.undistilled:
                found.append([mine, untrained_arm(name, "plain")])
            if evaluation is not None and evaluation.teachers:
                found.append([mine, teacher_arm(next(iter(self.recipe.ask)), "elaborate")])
        return found

    def _density(self, layout: list[Stage]) -> list[Stage]:
        """The stages that measure what arms have written; teachers' do not wait for students'."""
        found = []
        for who, run in (("teachers", PREDICT_TEACHERS), ("students", PREDICT_STUDENT)):
            written = {s.name: s.name for s in layout if s.run == run and self.judged(s)}
            if written:
                rows = {"rows": self.part.stage("evaluation"), **written}
                found.append(self.density_of(f"density-{who}", rows))
        return found

    def _teach(self, way: Way, rows: str) -> list[Stage]:
        """What follows from teachers that are asked one way: their arms, and the students'."""
        recipe, part = self.recipe, self.part
        after, asks, turns = AFTER[way], self.asks(way), part.task.turns
        asked = recipe.asks_for(part)
        layout = []
        decided = self.decided(way)
        if asked:
            layout.append(
                ask_stage(
                    part.stage(f"ask{after}"),
                    recipe,
                    asks,
                    part.stage(rows),
                    turns=turns,
                    decided=decided,
                )
            )
        if part.evaluation is not None and part.evaluation.teachers:
            evaluation = part.stage(f"ask-evaluation{after}")
            layout.append(
                ask_stage(
                    evaluation, recipe, asks, part.stage("evaluation"), turns=turns, decided=decided
                )
            )
            judge = self.judge_teachers(f"predict-teachers{after}", evaluation, way)
            layout.append(replace(judge, decisions=self.chosen(way)))
        if way == "plain" and part.task.labels == "gold":
            return layout  # what students learn is the same
        for form in ("choices", "text"):
            some = {
                n: student for n, student in recipe.students.items() if form_of(student) == form
            }
            if some:
                extract = self._extract(way, rows, form, asked=asked)
                layout.append(extract)
                for name, student in some.items():
                    layout += self._train(way, name, student, extract.name)
        return layout

    def _extract(self, way: Way, rows: str, form: str, *, asked: bool) -> Stage:
        part = self.part
        answers = {"answers": part.stage(f"ask{AFTER[way]}")} if asked else {}
        return Stage(
            name=part.stage(f"{EXTRACT[form]}{AFTER[way]}"),
            run="pipelines.extraction:extract",
            ray=False,
            settings={
                "task": part.task.model_dump(),
                "answers": self.answers(way),
                "form": form,
            },
            inputs={"inputs": part.stage(rows), **answers},
            decisions=self.chosen(way) if asked else {},
        )

    def _train(self, way: Way, name: str, student: Student, rows: str) -> list[Stage]:
        part, after = self.part, AFTER[way]
        train = self.train(name, student, rows, after=after)
        if part.evaluation is None:
            return [train]
        arm = student_arm(name, way)
        stage = self.predict(f"predict-{name}{after}", arm, student, trained=train.name)
        # What ablations compare: the student itself, of a recipe with one data set.
        predicts = "" if part.name or way == "plain" else name
        return [train, replace(stage, predicts=predicts)]

    def _untrained(self, name: str, student: Student, prompt: Prompt | None) -> Stage:
        """An arm of a student that has learnt nothing yet."""
        ask = next(iter(self.recipe.ask.values()))
        train = student.train
        after, length = "undistilled", train.max_answer_length
        arm = untrained_arm(name, "plain" if prompt is None else "elaborate")
        if prompt is not None:
            after, length = "undistilled-elaborate", ask.sampling.max_tokens
        untrained = {
            # An elaborate prompt may be longer than what the student is trained on.
            "max_length": train.max_length if prompt is None else NO_LIMIT,
            "max_answer_length": length,
            "prompt": prompt
            and {
                "user": prompt.text,
                "system": prompt.system,
                "answer": self.answers("elaborate")[next(iter(self.recipe.ask))],
            },
        }
        stage = self.predict(f"predict-{name}-{after}", arm, student, untrained=untrained)
        decisions = {} if prompt is None else self.chosen("elaborate")
        return replace(stage, decisions=decisions)
