"""How sure a student is of itself: it answers each row several times, and the answers are counted.

Signal one of 2406.05322; how it is computed there is not in what we have, and here is ours.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from core.identity import content_id
from core.ledger import Entry
from core.models import model_folder
from core.recipe_answers import AnswerTask
from core.recipe_section import Device
from core.rows import SAMPLED
from core.stage import Progress, StageContext, StageResult
from core.student_reading import StudentReading
from pipelines.answered_rows import vote
from pipelines.answers import AnswerReader
from pipelines.questions import Question, Questions, each
from pipelines.row_work import Rejection, Row, rejected_table
from pipelines.student_samples import Drawing, Drawn, draw_samples

UNASKED = "unasked"
"""The shard of the rows that no student can be asked about."""

Asking = list[tuple[Question, Row]]
"""Questions, each with its input row."""


def sample_student(context: StageContext) -> StageResult:
    """Stage: a student's samples of every row that it has not learnt from, and their majority.

    A row with equal samples is sure; one whose samples have no answer is not sure at all. Rows that
    no student can be asked about are rejected as `no-field`, `empty` or `no-choices`.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `family`; `model`, that it
    is or was; `device`, a `core.recipe_section.Device` as a dictionary; `drawing`, a
    `pipelines.student_samples.Drawing` as a dictionary; `max_length`, tokens of an input of a
    student that has learnt nothing yet.
    Inputs: `rows`, input rows; `taught`, those of them that it has learnt from, and `student`, with
    its Hugging Face folder, where it has learnt something.
    """
    task = AnswerTask.model_validate(context.settings["task"])
    asked, rejections = _questions(context, Questions(task))
    # Long ones beside long ones: what is padded takes time.
    asked.sort(key=lambda pair: len(pair[0].text))
    stage, size = context.stage, context.recipe.recipe.shard_rows
    parts = (asked[at : at + size] for at in range(0, len(asked), size))
    shards = {f"rows-{content_id([q.id for q, _ in part])[:16]}": part for part in parts}
    there = stage.committed_shards()
    pending = {key: part for key, part in shards.items() if key not in there}
    reader = AnswerReader(task, task.plain.answer)
    done = len(asked) - sum(map(len, pending.values()))
    for key, drawn in _drawn(context, pending):
        rows = [_sampled(question, row, drawn[row["id"]], reader) for question, row in pending[key]]
        nothing = rejected_table(stage.stage, [])
        stage.commit_shard(key, pa.Table.from_pylist(rows, schema=SAMPLED), nothing)
        done += len(rows)
        context.show(Progress(done, len(asked)))
    stage.commit_shard(UNASKED, SAMPLED.empty_table(), rejected_table(stage.stage, rejections))
    reasons = Counter(rejection.reason for _, rejection in rejections)
    return StageResult([*shards, UNASKED], len(asked), dict(reasons.most_common()))


def _questions(
    context: StageContext, questions: Questions
) -> tuple[Asking, list[tuple[str, Rejection]]]:
    """What the student is asked, each row once, and the rows that it cannot be asked about."""
    taught = context.inputs.get("taught")
    seen = {row["id"] for row in each(taught)} if taught else set()
    found: Asking = []
    rejections: list[tuple[str, Rejection]] = []
    for row in each(context.inputs["rows"]):
        if row["id"] in seen:
            continue
        seen.add(row["id"])
        question = questions.of(row)
        if isinstance(question, Rejection):
            rejections.append((row["id"], question))
        else:
            found.append((question, row))
    return found, rejections


def _drawn(
    context: StageContext, pending: dict[str, Asking]
) -> Iterator[tuple[str, dict[str, Drawn]]]:
    """The samples of every shard, by the rows' ids, as soon as all of them are there."""
    if not pending:
        return
    settings, began = context.settings, time.monotonic()
    device, drawing = Device.model_validate(settings["device"]), Drawing(**settings["drawing"])
    student = context.inputs.get("student")
    if student is None:
        folder = context.model(settings["model"])
        longest = (settings["max_length"], drawing.max_tokens)
        reading = StudentReading.of_base(settings["family"], *longest)
    else:
        folder = model_folder(student.folder.child("student").location)
        reading = StudentReading.of(folder)
    key_of = {question.id: key for key, part in pending.items() for question, _ in part}
    listed = [(question.id, question.asked) for part in pending.values() for question, _ in part]
    open_: dict[str, dict[str, Drawn]] = {key: {} for key in pending}
    done: list[Drawn] = []
    for one in draw_samples(folder, listed, reading, device, drawing, blocks=len(pending)):
        key = key_of[one.id]
        open_[key][one.id] = one
        done.append(one)
        if len(open_[key]) == len(pending[key]):
            yield key, open_.pop(key)
            context.write_entry(_entry(context, device, done, time.monotonic() - began))


def _entry(context: StageContext, device: Device, done: list[Drawn], seconds: float) -> Entry:
    """What the ledger is told: all that was no drawing was the student's start."""
    useful = sum(one.seconds for one in done)
    return Entry(
        stage=context.stage.stage,
        attempt=context.attempt,
        device=device.kind,
        model=context.settings["model"],
        requests=sum(len(one.texts) for one in done),
        tokens_in=sum(one.tokens_in for one in done),
        tokens_out=sum(one.tokens_out for one in done),
        rows=len(done),
        startup_seconds=device.count * (seconds - useful),
        useful_seconds=device.count * useful,
        wall_seconds=seconds,
    )


def _sampled(question: Question, row: Row, drawn: Drawn, reader: AnswerReader) -> Row:
    """A row of `core.rows.SAMPLED`."""
    winner = vote([reader.read(text, question.choices) for text in drawn.texts])
    right = None
    if question.right is not None:
        right = winner is not None and winner.found.key == question.right.key
    return {
        "id": row["id"],
        "fields": row["fields"],
        "texts": drawn.texts,
        "answer": winner and winner.found.text,
        "consistency": winner.share if winner else 0.0,
        "right": right,
        "tokens_in": drawn.tokens_in,
        "tokens_out": drawn.tokens_out,
    }
