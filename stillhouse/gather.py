"""Reads a run's manifests, rows and ledger into the report on a student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from core.ledger import Entry, total
from core.recipe_students import ChoiceObjective
from core.run import Run
from stillhouse.gather_ablation import ablations_of
from stillhouse.gather_cascade import told_cascade
from stillhouse.gather_serving import compare_facts, economics, servings
from stillhouse.gather_sweep import sweep_of
from stillhouse.report import data as report
from stillhouse.run_reader import Row, RunReader, provenance, samples

WRITE, SELECT = "pipelines.writing:write_items", "pipelines.selection:select"
SCORE, CLEAN = "pipelines.scoring:score", "pipelines.curation:curate"
TEACHER, STUDENT = "pipelines.evaluation:predict_teacher", "pipelines.evaluation:predict_student"
TRAIN = "training.stage:train"
EVALUATION = "evaluation"
"""The stage with the rows that all models answer."""


@dataclass
class StudentReader(RunReader):
    """A run that makes a student."""

    student: str = ""
    """The student that is read of: the recipe's first if empty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.student = self.student or next(iter(self.loaded.student_recipe.students))


def gather(run: Run) -> report.ReportData:
    """Read a run, finished or not, into the report's data."""
    return gather_of(StudentReader(run))


def gather_of(reader: StudentReader) -> report.ReportData:
    """The same of a reader, about its student."""
    recipe = reader.loaded.student_recipe
    choices = recipe.choices
    predictions = [
        row
        for function in (TEACHER, STUDENT)
        for stage in reader.stages(function)
        if stage.inputs["rows"] == EVALUATION
        for row in reader.rows(stage.name)
    ]
    qualities = _qualities(reader, predictions)
    comparison = _comparison(reader, qualities, predictions)
    kept = [row for stage in reader.stages(SELECT) for row in reader.rows(stage.name)]
    scored = _scored_items(reader)
    answers = _answers(comparison, predictions, choices)
    costs = economics(reader, reader.student, reader.ancestors(f"train-{reader.student}"))
    rejected = _rejected(reader)
    different = [row for row in answers if row.teacher is not None and row.teacher != row.student]
    wrong = [row for row in answers if row.student != row.answer]
    return report.ReportData(
        name=recipe.name,
        method=recipe.method,
        instruction=recipe.task.instruction,
        choices=choices,
        warnings=_warnings(reader, qualities, comparison, predictions),
        qualities=qualities,
        comparison=comparison,
        confusion=_confusion(comparison, answers, len(choices)),
        economics=costs,
        servings=servings(reader, reader.student),
        stages=_stage_costs(reader),
        ways=_ways(reader, kept, scored),
        rejections=_rejections(reader, scored),
        balance=_balance(choices, scored, kept, _score_column(reader)),
        confidence=_confidence(scored, _score_column(reader)),
        trainings=_trainings(reader),
        kept=samples([_training_row(row, _temperature(reader), choices) for row in kept]),
        rejected=samples(rejected),
        disagreements=samples(different),
        mistakes=samples(wrong),
        provenance=provenance(
            reader, {name: student.model for name, student in recipe.students.items()}
        ),
        sweep=sweep_of(reader),
        ablations=ablations_of(reader),
        cascade=told_cascade(reader, reader.student, costs),
        domains=_domains(reader),
    )


# Quality


def _qualities(reader: StudentReader, predictions: list[Row]) -> list[report.Quality]:
    """One quality per model: examples alone, then teachers, then students."""
    roles = _roles(reader)
    order = ["baseline", "teacher", "student"]
    models = sorted(
        dict.fromkeys(row["model"] for row in predictions), key=lambda m: order.index(roles[m][0])
    )
    return [
        _quality(reader, roles[model], [row for row in predictions if row["model"] == model])
        for model in models
    ]


def _roles(reader: StudentReader) -> dict[str, tuple[Any, str]]:
    """By the model's name in predictions: its role, and the name to show."""
    roles: dict[str, tuple[Any, str]] = {}
    for teacher in reader.loaded.student_recipe.teachers:
        for setting in ("raw", "calibrated"):
            roles[f"{teacher} {setting}"] = ("teacher", f"Teacher {teacher}, {setting}")
    for student in reader.loaded.student_recipe.students:
        roles[f"{student}-examples-alone"] = ("baseline", f"{student}, examples alone")
        roles[student] = ("student", f"Student {student}")
    return roles


def _quality(reader: StudentReader, role: tuple[Any, str], rows: list[Row]) -> report.Quality:
    def score(some: Iterable[Row]) -> report.Score:
        right = [row["predicted"] == row["answer"] for row in some]
        return report.Score.of(sum(right), len(right))

    def score_by(column: str) -> dict[str, report.Score]:
        by_word: dict[str, list[Row]] = {}
        for row in rows:
            if row[column] is not None:
                by_word.setdefault(row[column], []).append(row)
        return {w: score(by_word[w]) for w in sorted(by_word)} if len(by_word) > 1 else {}

    return report.Quality(
        name=role[1],
        role=role[0],
        score=score(rows),
        by_difficulty=score_by("difficulty"),
        by_choice=[
            score(row for row in rows if row["answer"] == index)
            for index in range(len(reader.loaded.student_recipe.choices))
        ],
        by_subject=score_by("subject"),
    )


def _domains(reader: StudentReader) -> list[report.DomainScore]:
    """What students answer to rows of other domains."""
    found, roles = [], _roles(reader)
    for stage in reader.stages(STUDENT):
        if stage.inputs["rows"] == EVALUATION:
            continue
        right = [row["predicted"] == row["answer"] for row in reader.rows(stage.name)]
        domain = stage.inputs["rows"].removeprefix(f"{EVALUATION}-")
        model = roles[stage.settings["name"]][1]
        found.append(report.DomainScore(domain, model, report.Score.of(sum(right), len(right))))
    return found


def _comparison(
    reader: StudentReader, qualities: list[report.Quality], predictions: list[Row]
) -> report.Comparison | None:
    """The student beside the teacher's best measured setting."""
    names = {shown: model for model, (_, shown) in _roles(reader).items()}
    teachers = [q for q in qualities if q.role == "teacher"]
    student = next((q for q in qualities if names[q.name] == reader.student), None)
    if student is None or not teachers:
        return None
    best = max(teachers, key=lambda q: q.score.share or 0.0)
    right = {
        name: {r["id"]: r["predicted"] == r["answer"] for r in predictions if r["model"] == name}
        for name in (names[student.name], names[best.name])
    }
    ours, theirs = right[names[student.name]], right[names[best.name]]
    pairs = [(ours[row], theirs[row]) for row in ours if row in theirs]
    return report.Comparison(
        student=student.name,
        teacher=best.name,
        paired=report.Paired(
            both=pairs.count((True, True)),
            only_student=pairs.count((True, False)),
            only_teacher=pairs.count((False, True)),
            neither=pairs.count((False, False)),
        ),
    )


def _answers(
    comparison: report.Comparison | None, predictions: list[Row], choices: list[str]
) -> list[report.Answer]:
    """What the compared two answered to each evaluation row."""
    if comparison is None:
        return []
    student_name = comparison.student.removeprefix("Student ")
    teacher_name = comparison.teacher.removeprefix("Teacher ").replace(", ", " ")
    teacher = {row["id"]: row for row in predictions if row["model"] == teacher_name}
    return [
        report.Answer(
            id=row["id"],
            question=row["question"],
            answer=row["answer"],
            teacher=teacher[row["id"]]["predicted"] if row["id"] in teacher else None,
            teacher_probabilities=(
                teacher[row["id"]]["probabilities"] if row["id"] in teacher else None
            ),
            student=row["predicted"],
            student_probabilities=row["probabilities"],
            difficulty=row["difficulty"],
            choices=None if choices else row["choices"],
        )
        for row in predictions
        if row["model"] == student_name
    ]


def _confusion(
    comparison: report.Comparison | None, answers: list[report.Answer], choices: int
) -> report.Confusion | None:
    if comparison is None or not choices:
        return None
    counts = np.zeros((choices, choices), dtype=int)
    for row in answers:
        counts[row.answer, row.student] += 1
    return report.Confusion(comparison.student, counts.tolist())


# Cost


def _stage_costs(reader: StudentReader) -> list[report.StageCost]:
    entries = reader.entries
    made = reader.ancestors(f"train-{reader.student}")
    costs = []
    for stage in reader.layout:
        used = [entry for entry in entries if entry.stage == stage.name]
        for device in dict.fromkeys(entry.device for entry in used):
            some = [entry for entry in used if entry.device == device]
            summed = total(some, reader.prices)
            values = {**vars(summed.entry), "stage": stage.name, "device": device}
            costs.append(
                report.StageCost(
                    entry=Entry(**values),
                    attempts=len({entry.attempt for entry in some}),
                    money=summed.money,
                    making=stage.name in made,
                )
            )
    return costs


# Data


def _scored_items(reader: StudentReader) -> list[Row]:
    """Scored generated rows, with the way that they were written by."""
    clean = next(iter(reader.stages(CLEAN)), None)
    modes = {r["id"]: r["mode"] for r in reader.rows(clean.name, ["id", "mode"])} if clean else {}
    return [
        {**row, "mode": modes[row["item"]]}
        for stage in reader.stages(SCORE)
        for row in reader.rows(stage.name)
        if row["item"] in modes
    ]


def _ways(reader: StudentReader, kept: list[Row], scored: list[Row]) -> list[report.Way]:
    return [
        report.Way(
            name=stage.settings["mode"],
            asked=stage.extent["rows"],
            generated=reader.manifest(stage.name).rows,
            duplicates=_duplicates(reader, stage.settings["mode"]),
            scored=sum(row["mode"] == stage.settings["mode"] for row in scored),
            kept=sum(row["source"] == stage.settings["mode"] for row in kept),
        )
        for stage in reader.stages(WRITE)
    ]


def _duplicates(reader: StudentReader, mode: str) -> int:
    """Items of a way that were dropped for what they repeat."""
    reasons = [
        reader.manifest(stage.name).facts.get("rejected_by_mode", {}).get(mode, {})
        for stage in reader.stages(CLEAN)
    ]
    return sum(found.get(word, 0) for found in reasons for word in ("duplicate", "near-duplicate"))


def _rejections(reader: StudentReader, scored: list[Row]) -> list[report.Rejection]:
    """Rejected rows by stage, reason and the way that they were written by."""
    ways = {row["id"]: row["mode"] for row in scored}
    ways |= {row["item"]: row["mode"] for row in scored}
    found: dict[tuple[str, str, str], int] = {}
    for stage in reader.layout:
        if stage.name not in reader.finished:
            continue
        mode = stage.settings.get("mode", "")
        by_mode = reader.manifest(stage.name).facts.get("rejected_by_mode")
        if by_mode is not None:
            for way, reasons in by_mode.items():
                for reason, number in reasons.items():
                    found[stage.name, reason, way] = number
            continue
        table = reader.finished[stage.name].read_rejected()
        for row in table.select(["id", "reason"]).to_pylist():
            key = (stage.name, row["reason"], mode or ways.get(row["id"], ""))
            found[key] = found.get(key, 0) + 1
    return [report.Rejection(*key, count=number) for key, number in found.items()]


def _rejected(reader: StudentReader) -> list[report.RejectedRow]:
    return [
        report.RejectedRow(**row)
        for stage in reader.layout
        if stage.name in reader.finished
        for row in reader.finished[stage.name].read_rejected().to_pylist()
    ]


def _score_column(reader: StudentReader) -> str:
    """Which of a teacher's scores the students learned from."""
    stage = next(iter(reader.stages(SELECT)), None)
    calibrated = stage is not None and stage.settings["scores"] == "calibrated"
    return "calibrated" if calibrated else "logprobs"


def _balance(
    choices: Sequence[str], scored: list[Row], kept: list[Row], column: str
) -> list[report.Balance]:
    if not scored or not choices:
        return []
    return [
        report.Balance(
            choice=index,
            intended=sum(row["intended"] == index for row in scored),
            teacher=sum(int(np.argmax(row[column])) == index for row in scored),
            final=sum(row["answer"] == index for row in kept),
        )
        for index in range(len(choices))
    ]


def _confidence(scored: list[Row], column: str) -> report.Histogram | None:
    if not scored:
        return None
    return report.Histogram.of([float(softmax(row[column]).max()) for row in scored])


def _temperature(reader: StudentReader) -> float:
    """Of the student's soft labels; 0 of one that learns from none."""
    objective = reader.loaded.student_recipe.students[reader.student].objective
    return objective.temperature if isinstance(objective, ChoiceObjective) else 0.0


def _training_row(row: Row, temperature: float, choices: list[str]) -> report.TrainingRow:
    logits = row["logits"]
    soft = None
    if logits is not None and temperature > 0:
        soft = softmax(np.array(logits) / temperature).tolist()
    own = None if choices else row["choices"]
    return report.TrainingRow(row["id"], row["question"], row["answer"], soft, row["source"], own)


def _trainings(reader: StudentReader) -> list[report.Training]:
    found = []
    for stage in reader.stages(TRAIN):
        facts = reader.manifest(stage.name).facts
        epochs = [
            report.Epoch(e["epoch"], e["train_loss"], e["validation_loss"])
            for e in facts["history"]
        ]
        name = stage.name.removeprefix("train-").replace("-examples-alone", ", examples alone")
        found.append(report.Training(name, epochs, facts["best_epoch"]))
    return found


# Provenance


def _warnings(
    reader: StudentReader,
    qualities: list[report.Quality],
    comparison: report.Comparison | None,
    predictions: list[Row],
) -> list[str]:
    """What a reader must know before trusting the figures."""
    warnings = []
    undone = [stage.name for stage in reader.layout if stage.name not in reader.finished]
    if undone:
        warnings.append(f"The run is not finished. Missing: {', '.join(undone)}.")
    asked = {row["id"]: len(row["choices"]) for row in predictions}
    chance = sum(1 / number for number in asked.values()) / (len(asked) or 1)
    for quality in qualities:
        low = quality.score.low
        if quality.role == "teacher" and low is not None and low <= chance:
            warnings.append(
                f"{quality.name} is no better than guessing; a student cannot learn from it."
            )
    if comparison is not None:
        student = next(q for q in qualities if q.name == comparison.student)
        if student.score.total < 100:
            warnings.append(f"Only {student.score.total} evaluation rows: the intervals are wide.")
    facts = compare_facts(reader, reader.student)
    for role in ("teacher", "student"):
        if facts and facts[role]["errors"]:
            failed = f"{facts[role]['errors']} of {facts[role]['requests']}"
            warnings += [f"{failed} requests to the {role} failed."]
    return warnings
