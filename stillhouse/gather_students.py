"""Reads what a run made of teachers' answers: training rows, students, and how right they are."""

from __future__ import annotations

from typing import Any

from core.ledger import total
from core.recipe import TrainingRecipe
from stillhouse.distilling import LearningRecipe
from stillhouse.gather_cascade import told_cascade
from stillhouse.gather_serving import economics, servings
from stillhouse.part_layout import PREDICT_STUDENT, PREDICT_TEACHERS
from stillhouse.report.data import Paired, Score
from stillhouse.report.teacher_data import (
    ComparedStudent,
    Explained,
    Judged,
    StudentTraining,
    TeacherRationales,
    TrainingRows,
)
from stillhouse.right_answers import Right, right_answers
from stillhouse.run_reader import RunReader
from stillhouse.stages import Stage

EXTRACT, TRAIN = "pipelines.extraction:extract", "training.stage:train"
EXPLAIN = "pipelines.explaining:explain"
RATIONALIZE = "pipelines.teacher_rationales:rationalize"
TEACH = "pipelines.teaching:teach"
MAKES_ROWS = (EXTRACT, EXPLAIN, RATIONALIZE, TEACH)
"""What makes training rows of answers."""


def training_rows(reader: RunReader) -> list[TrainingRows]:
    """What became of the answers, for each kind of student."""
    return [
        TrainingRows(
            stage=stage.name,
            labels=stage.settings["task"]["labels"],
            **{name: manifest.facts[name] for name in ("answers", "read", "outvoted")},
            explained=_explained(manifest.facts.get("explained")),
            rationales=[
                TeacherRationales(teacher, **told)
                for teacher, told in manifest.facts.get("rationales", {}).items()
            ],
            rows=manifest.rows,
            rejected=manifest.rejected,
        )
        for stage in reader.layout
        if stage.run in MAKES_ROWS and stage.name in reader.finished
        for manifest in [reader.manifest(stage.name)]
    ]


def _explained(facts: dict[str, Any] | None) -> Explained | None:
    if facts is None:
        return None
    often = facts["most_frequent"] or {"label": None, "share": None}
    return Explained(
        drawn=facts["drawn"],
        rows=facts["rows"],
        mean_words=facts["mean_words"],
        words=facts["words"],
        most_frequent=often["label"],
        most_frequent_share=often["share"],
    )


def trainings(reader: RunReader) -> list[StudentTraining]:
    """What the students that are there took."""
    found = []
    for stage in reader.stages(TRAIN):
        name = stage.settings["student"]
        summed = total((e for e in reader.entries if e.stage == stage.name), reader.prices)
        found.append(
            StudentTraining(
                name=stage.name.removeprefix("train-"),
                model=reader.loaded.training_recipe.students[name].model,
                rows=reader.manifest(stage.name).rows,
                used=summed.entry,
                money=summed.money,
            )
        )
    return found


def judged(reader: RunReader) -> list[Judged]:
    """All models that have answered the evaluation rows; students beside the best teacher.

    Of a run on several data sets, or where no answer is the right one, the tables of its arms tell
    that (`stillhouse.gather_arms`).
    """
    recipe = reader.loaded.recipe
    if not isinstance(recipe, LearningRecipe):
        return []
    parts = recipe.parts()
    if len(parts) > 1 or parts[0].task.measure != "accuracy":
        return []
    teachers: dict[str, Right] = {}
    found: list[Judged] = []
    for stage in reader.stages(PREDICT_TEACHERS):
        if stage.inputs["rows"] != parts[0].stage("evaluation"):
            continue  # it is of the rows that are chosen by
        facts = reader.manifest(stage.name).facts
        right_by_name = right_answers(reader.rows(stage.name))
        teachers |= right_by_name
        found += [
            Judged(
                name=name,
                role="teacher",
                score=_score(right),
                unparsed=facts["unparsed"][name],
                unanswered=facts["unanswered"][name],
            )
            for name, right in right_by_name.items()
        ]
    best = max(found, key=lambda teacher: teacher.score.share or 0.0).name if found else None
    for stage in reader.stages(PREDICT_STUDENT):
        facts = reader.manifest(stage.name).facts
        by_choice = _by_choice(reader, stage, facts)
        for name, right in right_answers(reader.rows(stage.name)).items():
            found.append(
                Judged(
                    name=name,
                    role="student",
                    score=_score(right),
                    unparsed=facts["unparsed"][name] if "unparsed" in facts else None,
                    unanswered=facts["unanswered"][name] if "unanswered" in facts else 0,
                    beside=best,
                    paired=None if best is None else paired(right, teachers[best]),
                    by_choice=by_choice.get(name),
                )
            )
    return found


def _by_choice(reader: RunReader, stage: Stage, facts: dict[str, Any]) -> dict[str, Score]:
    """By model: how it does by the choices that it would most likely write, if they are scored."""
    if "choice_accuracy" not in facts:
        return {}
    found = right_answers(reader.rows(stage.name), by_choice=True)
    return {name: _score(right) for name, right in found.items()}


def _score(right: Right) -> Score:
    return Score.of(sum(right.values()), len(right))


def paired(student: Right, teacher: Right) -> Paired:
    """How two models did on the rows that both have answered."""
    pairs = [(student[row], teacher[row]) for row in student if row in teacher]
    return Paired(
        both=pairs.count((True, True)),
        only_student=pairs.count((True, False)),
        only_teacher=pairs.count((False, True)),
        neither=pairs.count((False, False)),
    )


def compared_students(reader: RunReader) -> list[ComparedStudent]:
    """Students beside their teachers: under load, and as cascades."""
    recipe = reader.loaded.recipe
    if not isinstance(recipe, TrainingRecipe):
        return []
    found = []
    for name in recipe.students:
        if f"train-{name}" not in reader.finished:
            continue
        costs = economics(reader, name, reader.ancestors(f"train-{name}"))
        both, deferring = servings(reader, name), told_cascade(reader, name, costs)
        if both or deferring:
            found.append(ComparedStudent(name, both, costs, deferring))
    return found
