"""What a student that defers to its teacher would give, from what both answered."""

from __future__ import annotations

from serving.cascade_curve import Cascade, Row, cascade
from stillhouse.gather_serving import servings
from stillhouse.report import data as report
from stillhouse.run_reader import RunReader

TEACHERS = (
    "pipelines.evaluation:predict_teacher",
    "pipelines.prediction:predict_teachers",
)
"""Functions of the stages in which teachers answer evaluation rows."""

STUDENTS = (
    "pipelines.evaluation:predict_student",
    "pipelines.prediction:predict_student",
)
"""The same of students."""


def cascade_of(
    reader: RunReader, student: str, within: float | None = None
) -> tuple[Cascade, str] | None:
    """The cascade of a student and its best teacher, and that teacher's name in predictions.

    None where they have not both answered the evaluation rows, or a student gives no probabilities.

    Args:
        reader: Of the run.
        student: Its name in the recipe.
        within: How far below the teacher it may be, 0 to 1; one point if None.
    """
    right = _teachers(reader)
    sure = _student(reader, student)
    if not right or not sure:
        return None
    best = max(right, key=lambda name: sum(right[name].values()) / len(right[name]))
    rows = [
        Row(row, confidence, was_right, right[best][row])
        for row, (confidence, was_right) in sure.items()
        if row in right[best]
    ]
    found = cascade(rows) if within is None else cascade(rows, within)
    return None if found is None else (found, best)


def told_cascade(reader: RunReader, student: str, costs: report.Economics) -> report.Cascade | None:
    """The same for the report, with what requests cost."""
    found = cascade_of(reader, student)
    if found is None:
        return None
    made, teacher = found
    compared = next((one.name for one in servings(reader, student) if one.role == "teacher"), None)

    def money(deferred: float) -> float | None:
        """A thousand requests: the student answers all, and the teacher what it defers."""
        # `gemma raw`, or `gemma, plain prompt`: another teacher's requests cost other money.
        if teacher.replace(",", " ").split()[0] != compared:
            return None
        if costs.student_per_thousand is None or costs.teacher_per_thousand is None:
            return None
        return costs.student_per_thousand + deferred * costs.teacher_per_thousand

    return report.Cascade(
        student=student,
        teacher=teacher,
        within=made.within,
        threshold=made.chosen.threshold,
        chosen_rows=made.chosen.rows,
        rows=made.judged.rows,
        deferred=made.judged.deferred,
        accuracy=made.judged.accuracy,
        money_per_thousand=money(made.judged.deferred),
        student_accuracy=made.student,
        teacher_accuracy=made.teacher,
        curve=[
            report.CascadePoint(one.threshold, one.deferred, one.accuracy, money(one.deferred))
            for one in made.curve
        ],
    )


def _teachers(reader: RunReader) -> dict[str, dict[str, bool]]:
    """By model and row: whether it was right."""
    found: dict[str, dict[str, bool]] = {}
    for function in TEACHERS:
        for stage in reader.stages(function):
            if stage.inputs.get("rows") == "selection":  # candidates, on rows of their own
                continue
            for row in reader.rows(stage.name):
                # A model that chooses is told by numbers of choices, one that writes by its texts.
                right = row["right"] if "right" in row else row["predicted"] == row["answer"]
                found.setdefault(row["model"], {})[row["id"]] = right
    return found


def _student(reader: RunReader, student: str) -> dict[str, tuple[float, bool]]:
    """By row: its highest probability, and whether it was right."""
    return {
        row["id"]: (max(row["probabilities"]), row["predicted"] == row["answer"])
        for function in STUDENTS
        for stage in reader.stages(function)
        for row in reader.rows(stage.name)
        if row["model"] == student and "probabilities" in row
    }
