"""The stage that trains a student.

<stage>/student/        the student, a Hugging Face folder
<stage>/student.json    what it was made from and its facts; written last, it makes it count
<stage>/train/          checkpoints, until the student is there
"""

from __future__ import annotations

import json
from concurrent.futures import wait
from pathlib import Path
from typing import Any

from pyarrow import fs

from core.errors import UseError
from core.identity import content_id
from core.recipe import Train
from core.run import Folder
from core.stage import StageContext, StageResult
from training.job import Job
from training.meter import Meter
from training.notes import NoteBox
from training.rows import read_rows
from training.schedule import plan

STUDENT = "student"
RECORD = "student.json"

POLL_SECONDS = 0.5
"""Between two looks at the progress."""

STOP_SECONDS = 60.0
"""How long workers that were asked to stop may take over a last checkpoint."""


def train(context: StageContext) -> StageResult:
    """Train a student on the rows of the input `rows`.

    Settings: `student`, its name in the recipe; `train`, a `core.recipe.Train` as a dictionary;
    `seed`.
    """
    folder = context.stage.folder
    made_from = content_id(
        context.settings,
        context.recipe.recipe.students[context.settings["student"]].model,
        context.recipe.recipe.task.choices,
        _rows_fingerprint(context),
    )
    facts = _finished(folder, made_from)
    if facts is None:
        facts = _train(context, made_from)
        folder.write_json(RECORD, {"made_from": made_from, "facts": facts})
        _delete(folder.child("checkpoints"))
    return StageResult(shards=[], rows=facts["training_rows"], facts=facts)


def _rows_fingerprint(context: StageContext) -> str | None:
    manifest = context.inputs["rows"].manifest()
    return manifest.fingerprint if manifest else None


def _finished(folder: Folder, made_from: str) -> dict[str, Any] | None:
    """The facts of a student that an attempt finished just before it was killed."""
    if not folder.has(RECORD):
        return None
    record = folder.read_json(RECORD)
    facts: dict[str, Any] = record["facts"]
    return facts if record["made_from"] == made_from else None


def _train(context: StageContext, made_from: str) -> dict[str, Any]:
    storage, name = context.stage.folder.child("checkpoints"), made_from[:12]
    job = _job(context, NoteBox(storage.child(name), context.attempt))
    _drop_torn_snapshot(storage.child(name))
    from training.launch import launch  # Ray and torch take seconds to load

    meter = Meter(context, job)
    outcome = launch(job, storage, name)
    try:
        while not outcome.done():
            meter.refresh()
            wait([outcome], POLL_SECONDS)
        facts = outcome.result()
    except BaseException:  # such as Ctrl-C, or an error that `show` raises to stop the run
        job.box.ask_to_stop()
        wait([outcome], STOP_SECONDS)
        meter.close(rows=0)
        raise
    meter.refresh()
    meter.close(rows=job.schedule.training_rows)
    return {**facts, "student": STUDENT}


def _job(context: StageContext, box: NoteBox) -> Job:
    recipe = context.recipe.recipe
    name = context.settings["student"]
    train = Train.model_validate(context.settings["train"])
    rows = context.inputs["rows"]
    table = read_rows(rows, recipe.task.choices)
    return Job(
        recipe=recipe.name,
        student=name,
        model=recipe.students[name].model,
        base=_base(context.model(recipe.students[name].model)),
        rows=rows,
        choices=recipe.task.choices,
        train=train,
        seed=context.settings["seed"],
        schedule=plan(table.num_rows, train),
        target=context.stage.folder.child(STUDENT),
        box=box,
    )


def _base(folder: Path) -> Path:
    if not any(folder.glob("*.safetensors")):
        raise UseError(
            f"model folder {folder}",
            "it has no weights in safetensors; others are not read, as they can run code.",
            "Convert it with transformers: load it where you trust it, then save_pretrained.",
        )
    return folder


def _drop_torn_snapshot(folder: Folder) -> None:
    """Start anew if a kill fell into Ray Train's own writing of its list of checkpoints."""
    snapshot = "checkpoint_manager_snapshot.json"
    try:
        if folder.has(snapshot):
            folder.read_json(snapshot)
    except json.JSONDecodeError:
        _delete(folder)


def _delete(folder: Folder) -> None:
    system, path = fs.FileSystem.from_uri(folder.location)
    system.delete_dir(path)
