"""What a student's model card tells, read from its run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from core.ledger import total
from core.licences import Source, find_source
from core.recipe_students import ChoiceObjective, LogitObjective, SequenceObjective, Student
from core.recipe_teachers import EndpointTeacher, Teacher
from stillhouse.gather import SCORE, WRITE, StudentReader, gather_of
from stillhouse.report.data import Quality, ReportData
from stillhouse.run_reader import model_name

WORK = {WRITE: "wrote", SCORE: "scored"}
"""What a teacher did in a stage, by the stage's function; it answered in others."""


@dataclass(frozen=True)
class TeacherFact:
    """What a teacher did for a student."""

    name: str
    """In the recipe."""
    model: str
    revision: str | None
    work: list[str]
    """Such as `scored 512 rows`."""
    money: float | None
    """Cost of what it did; None where that is unknown."""
    share: float | None
    """Of all that the student cost to make, 0 to 1; None where either is unknown."""


@dataclass(frozen=True)
class CardData:
    """All that a card tells, but for what the exported files say themselves."""

    report: ReportData
    """Of the run, about this student."""
    student: Student
    """As the recipe has it."""
    name: str
    """Of the student in the recipe."""
    seed: int
    base_revision: str | None
    teachers: list[TeacherFact]
    facts: dict[str, Any]
    """Of the stage that trained the student."""
    rows: dict[str, int]
    """Rows of the training set, held-out ones included, by where they come from."""
    files: dict[str, str]
    """The recipe's input files, by the keys that name them."""
    sources: list[Source]
    """The models that it was made from, with their licences."""
    missing: list[str]
    """Stages that would have measured it, and are not done."""

    @property
    def quality(self) -> Quality | None:
        """How it answered the evaluation rows; None where it was not asked."""
        return self.report.quality(f"Student {self.name}")

    @property
    def qualities(self) -> list[Quality]:
        """Those that stand beside it: of its teachers, and of itself on the examples alone."""
        own = {f"Student {self.name}", f"{self.name}, examples alone"}
        return [q for q in self.report.qualities if q.role == "teacher" or q.name in own]


def gather_card(reader: StudentReader) -> CardData:
    """Read what the card of a reader's student tells; the student is trained."""
    recipe = reader.loaded.student_recipe
    student = recipe.students[reader.student]
    trained = f"train-{reader.student}"
    manifest = reader.manifest(trained)
    stage = next(stage for stage in reader.layout if stage.name == trained)
    measures = (f"predict-{reader.student}", "predict-teacher", f"compare-{reader.student}")
    report = gather_of(reader)
    models = report.provenance.models
    revisions = {m.name: m.revision for m in models if m.role == "teacher"}
    return CardData(
        report=report,
        student=student,
        name=reader.student,
        seed=recipe.seed,
        base_revision=next(
            m.revision for m in models if (m.role, m.name) == ("student", reader.student)
        ),
        teachers=_teachers(reader, trained, revisions),
        facts=manifest.facts,
        rows=dict(Counter(r["source"] for r in reader.rows(stage.inputs["rows"], ["source"]))),
        files=recipe.files(),
        sources=_sources(reader, trained),
        missing=[
            s.name for s in reader.layout if s.name in measures and s.name not in reader.finished
        ],
    )


def _teachers(
    reader: StudentReader, trained: str, revisions: dict[str, str | None]
) -> list[TeacherFact]:
    made = reader.ancestors(trained)
    stages = [stage for stage in reader.layout if stage.name in made]
    making = total([e for e in reader.entries if e.stage in made], reader.prices).money
    found = []
    for name, teacher in reader.loaded.recipe.teachers.items():
        mine = [stage for stage in stages if name in stage.teachers]
        if not mine:
            continue
        used = [e for e in reader.entries if e.stage in made and e.teacher == name]
        money = total(used, reader.prices).money
        found.append(
            TeacherFact(
                name=name,
                model=model_name(teacher),
                revision=revisions[name],
                work=[
                    f"{WORK.get(stage.run, 'answered')} {reader.manifest(stage.name).rows:,} rows"
                    for stage in mine
                ],
                money=money,
                share=money / making if making and money is not None else None,
            )
        )
    return found


def _sources(reader: StudentReader, trained: str) -> list[Source]:
    """The base, and every teacher whose outputs the student learnt from."""
    recipe = reader.loaded.student_recipe
    made = reader.ancestors(trained)
    taught = {name for s in reader.layout if s.name in made for name in s.teachers}
    found = [find_source("base", recipe.students[reader.student].model, "weights")]
    for name, teacher in recipe.teachers.items():
        if name not in taught:
            continue
        address = teacher.base_url if isinstance(teacher, EndpointTeacher) else None
        found.append(find_source(name, teacher.model, "outputs", address))
        if isinstance(teacher, Teacher) and teacher.adapter is not None:
            found.append(find_source(f"{name}, adapter", teacher.adapter, "outputs"))
    return found


def objective_in_words(student: Student) -> str:
    """The loss that a student learnt by."""
    loss = student.objective
    if isinstance(loss, ChoiceObjective):
        soft = f"the teacher's probabilities of the choices, at temperature {loss.temperature:g}"
        if loss.hard_weight == 0:
            return f"cross-entropy with {soft}; with the hard label where a row has no others"
        return (
            f"cross-entropy, {loss.hard_weight:g} of it with the hard label, the rest with {soft}"
        )
    if isinstance(loss, SequenceObjective):
        told = f"cross-entropy of the answer's tokens, with weight {loss.answer_weight:g}"
        rationales = [f"{name} {weight:g}" for name, weight in loss.rationale_weights.items()]
        more = f", and of rationales, with weights {', '.join(rationales)}" if rationales else ""
        return told + more
    assert isinstance(loss, LogitObjective)
    name = {"forward_kl": "forward KL", "reverse_kl": "reverse KL"}.get(
        loss.divergence, f"generalised Jensen-Shannon divergence (beta {loss.beta:g})"
    )
    told = f"{name} with the teacher's likeliest tokens"
    if loss.hard_weight == 0:
        return told
    return f"{told}; cross-entropy of the teacher's text weighs {loss.hard_weight:g}"
