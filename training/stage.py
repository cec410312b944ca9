"""The stage that trains a student.

    <stage>/student/        the student, a Hugging Face folder
    <stage>/student.json    what it was made from, and its facts
    <stage>/checkpoints/    until the student is there

`student.json` is written last: without it the student does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import wait
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import UseError
from core.identity import content_id
from core.models import model_folder
from core.recipe_students import Student
from core.recipe_teachers import Teacher
from core.run import Folder
from core.stage import StageContext, StageResult
from training.checkpoint_list import mend_list
from training.job import Job
from training.meter import Meter
from training.notes import NoteBox
from training.rows import count_rows
from training.schedule import plan

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""Of the trackers that a recipe may name."""

STUDENT = "student"
RECORD = "student.json"

POLL_SECONDS = 0.5
"""Between two looks at the progress."""

STOP_SECONDS = 60.0
"""How long workers that were asked to stop may take over a last checkpoint."""


def train(context: StageContext) -> StageResult:
    """Train a student on the rows of the input `rows`.

    Settings: `student`, its name in the recipe; `section`, a `core.recipe_students.Student` as a
    dictionary; `seed`.
    Inputs: `rows`; `start`, a finished training of the same student that this one goes on from; the
    student's base if absent.
    """
    before = [context.inputs[role] for role in ("rows", "start") if role in context.inputs]
    manifests = (stage.manifest() for stage in before)
    prints = [manifest.fingerprint for manifest in manifests if manifest is not None]
    made_from = content_id(context.settings, _choices(context), *prints)
    folder = context.stage.folder
    facts = _finished(folder, made_from)
    if facts is None:
        facts = _train(context, folder.child("checkpoints", made_from[:12]))
        folder.write_json(RECORD, {"made_from": made_from, "facts": facts})
        folder.child("checkpoints").remove()
    return StageResult(shards=[], rows=facts["training_rows"], facts=facts)


def _finished(folder: Folder, made_from: str) -> dict[str, Any] | None:
    """The facts of a student that an attempt finished just before it was killed."""
    if not folder.has(RECORD):
        return None
    record = folder.read_json(RECORD)
    facts: dict[str, Any] = record["facts"]
    return facts if record["made_from"] == made_from else None


def _train(context: StageContext, storage: Folder) -> dict[str, Any]:
    job = _job(context, storage)
    mend_list(storage)
    from training.launch import launch  # Ray and torch take seconds to load

    meter = Meter(context, job)
    outcome = launch(job)
    try:
        while not outcome.done():
            meter.refresh()
            wait([outcome], POLL_SECONDS)
        facts = outcome.result()
    except BaseException:  # such as Ctrl-C, or an error that `show` raises to stop the run
        if not outcome.done():
            job.box.ask_to_stop()
            wait([outcome], STOP_SECONDS)
        meter.close(rows=0)
        raise
    meter.refresh()
    meter.close(rows=job.schedule.training_rows)
    return {**facts, "student": STUDENT}


def _job(context: StageContext, storage: Folder) -> Job:
    student = Student.model_validate(context.settings["section"])
    _check_trackers(student.train.track)
    rows, choices = context.inputs["rows"], _choices(context)
    base = _base(_start(context, student))
    if student.objective.kind == "logits":
        _check_vocabularies(context, base)
    return Job(
        recipe=context.recipe.recipe.name,
        name=context.settings["student"],
        student=student,
        base=base,
        rows=rows,
        choices=choices,
        seed=context.settings["seed"],
        schedule=plan(count_rows(rows, student, choices), student.train),
        stage=context.stage.folder,
        target=context.stage.folder.child(STUDENT),
        storage=storage,
        box=NoteBox(storage, context.attempt),
    )


def _start(context: StageContext, student: Student) -> Path:
    """The folder of the weights that a training starts from."""
    start = context.inputs.get("start")
    if start is None:
        return context.model(student.model)
    return model_folder(start.folder.child(STUDENT).location)


def _check_vocabularies(context: StageContext, base: Path) -> None:
    """Refuse a student for which the tokens of its teachers have other numbers."""
    from transformers import AutoConfig, AutoTokenizer

    from training.vocabulary import check_same_vocabulary

    sources: set[str] = set()
    for table in context.inputs["rows"].iter_shards(["source"]):
        sources.update(table["source"].to_pylist())
    outputs = AutoConfig.from_pretrained(base).get_text_config().vocab_size
    for name in sorted(sources):
        teacher = context.recipe.recipe.teachers[name]
        assert isinstance(teacher, Teacher), "nobody else tells the likeliest tokens"
        check_same_vocabulary(
            f"students: {context.settings['student']}",
            AutoTokenizer.from_pretrained(context.model(teacher.model)),
            AutoTokenizer.from_pretrained(base),
            outputs,
        )


def _check_trackers(names: Sequence[str]) -> None:
    for name in names:
        package = PACKAGES[name]
        if find_spec(package) is None:
            raise UseError(
                "students: train.track",
                f"{name} is not installed here.",
                f"Install the package {package} on all machines, or take {name} out.",
            )


def _choices(context: StageContext) -> list[str]:
    """The task's, where it has a fixed list."""
    return context.recipe.training_recipe.choices


def _base(folder: Path) -> Path:
    if not any(folder.glob("*.safetensors")):
        raise UseError(
            f"model folder {folder}",
            "it has no weights in safetensors; others are not read, as they can run code.",
            "Convert it with transformers: load it where you trust it, then save_pretrained.",
        )
    return folder
