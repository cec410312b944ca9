"""A student's folder answers as the model that was trained did, in every family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from core.errors import WorkError
from core.recipe_students import Lora, Student, Train
from core.rows import TEXT_TRAINING, TRAINING
from core.run import Folder, StageFolder
from tests.training_case import CHOICES, make_choice_rows, make_rows, make_texts
from training.checkpoints import Best
from training.ddp import FILE, learnt
from training.export import export_student
from training.families import family_of
from training.family import logits_of
from training.job import Job
from training.notes import NoteBox
from training.schedule import Schedule
from training.start import model_of
from training.strategy import optimizer_of

CPU = torch.device("cpu")
TRAIN = Train(learning_rate=5e-3, max_length=32, max_answer_length=8)
REASONS = {"kind": "sequence", "rationale_weights": {"palm": 0.5}}
WRITES = Train.model_validate({**TRAIN.model_dump(), "objective": REASONS})
FORMS = {
    "encoder, classes": (Student(model="base", train=TRAIN), "tiny_encoder"),
    "encoder, choices": (Student(model="base", head="choices", train=TRAIN), "tiny_encoder"),
    "seq2seq": (Student(model="base", family="seq2seq", train=WRITES), "tiny_seq2seq"),
    "causal": (Student(model="base", family="causal", train=WRITES), "tiny_teacher"),
    "causal, LoRA": (
        Student(
            model="base", family="causal", train=WRITES.model_copy(update={"lora": Lora(rank=4)})
        ),
        "tiny_teacher",
    ),
}


def table_of(student: Student) -> pa.Table:
    if student.family != "encoder":
        return pa.Table.from_pylist(make_texts(24), schema=TEXT_TRAINING)
    rows = make_choice_rows(24) if student.head == "choices" else make_rows(24)
    return pa.Table.from_pylist(rows, schema=TRAINING)


@pytest.fixture(scope="module", params=FORMS)
def trained(request, tmp_path_factory):
    """A student after some steps of training: its job, what made it, and the checkpoint."""
    student, base = FORMS[request.param]
    tmp_path = tmp_path_factory.mktemp("trained")
    folder = Folder(str(tmp_path / "train"))
    choices = CHOICES if request.param == "encoder, classes" else []
    job = Job(
        recipe="tiny",
        name="student",
        student=student,
        base=request.getfixturevalue(base),
        rows=StageFolder("rows", folder),
        choices=choices,
        seed=1,
        schedule=Schedule(24, 0, 3, 1, 0),
        stage=folder,
        target=folder.child("student"),
        storage=folder.child("checkpoints"),
        box=NoteBox(folder, "a"),
    )
    family = family_of(student, job.base, choices, job.seed)
    table = table_of(student)
    units = family.units(table)
    model = model_of(job, family, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = optimizer_of(model.train(), student.train)
    for _ in range(3):
        numbers = units.of(range(24))
        losses = units.losses(model, numbers, CPU).losses
        (losses * units.coefficients(numbers)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = sum(not torch.equal(value, before[name]) for name, value in learnt(model).items())
    assert moved > 0.8 * len(learnt(model)), "it has learnt something"
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    torch.save({"weights": learnt(model)}, checkpoint / FILE)
    with torch.no_grad():
        sample = logits_of(model.eval(), family.sample(table), CPU)
    (tmp_path / "train").mkdir(exist_ok=True)
    return job, family, Best(checkpoint, 1, sample), table


def test_a_student_that_answers_otherwise_is_refused(trained, tmp_path):
    job, family, best, table = trained
    job = replace(job, target=Folder(str(tmp_path / "student")))
    other = best.sample.clone()
    other.view(-1)[0] += 2e-4
    with pytest.raises(WorkError, match=r"differ by 0\.0002 from those of the trained model"):
        export_student(job, family, replace(best, sample=other), table, CPU)
    assert not job.target.local.exists()


def test_logits_are_those_of_the_trained_model(trained):
    job, family, best, table = trained
    export_student(job, family, best, table, CPU)
    # As any user loads it, with nothing of ours.
    target: Path = job.target.local
    assert {path.suffix for path in target.iterdir() if path.suffix in (".bin", ".pt")} == set()
    assert AutoTokenizer.from_pretrained(target).get_vocab() == family.tokenizer.get_vocab()
    model = family.auto_class.from_pretrained(target).eval()
    with torch.no_grad():
        found = logits_of(model, family.sample(table), CPU)
    torch.testing.assert_close(found, best.sample, rtol=0, atol=1e-4)
    # It is the trained model's answer, and not that of the one that training began with.
    if job.student.family != "encoder":
        base = family.auto_class.from_pretrained(job.base).eval()
        with torch.no_grad():
            assert (logits_of(base, family.sample(table), CPU) - found).abs().max() > 1e-2
