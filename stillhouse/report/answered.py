"""What a run of teachers' answers came to: one sentence, and the figures below it."""

from __future__ import annotations

from statistics import fmean

from stillhouse.report.arms import ArmTable, in_words
from stillhouse.report.teacher_data import TeacherDataReport
from stillhouse.report.verdict import Verdict
from stillhouse.report.wording import count, money, percent, plural


def answered(data: TeacherDataReport) -> Verdict:
    """Sum up a run of teacher data, or of students that learnt from it."""
    students = [one for one in data.judged if one.role == "student"]
    if not students:
        below = _answered(data)
        sentence = _distilled(data.arms)
        return Verdict(sentence, f"{below.sentence} {below.evidence}") if sentence else below
    first = students[0]
    sentence = (
        f"{first.name} answers {percent(first.score.share)} of {count(first.score.total)} held-out "
        "questions right"
    )
    teacher = next((one for one in data.judged if one.name == first.beside), None)
    if teacher is not None:
        sentence += f", its teacher {teacher.name} {percent(teacher.score.share)}"
    below = _answered(data)
    return Verdict(f"{sentence}.", f"{below.sentence} {below.evidence}")


def _distilled(tables: list[ArmTable]) -> str | None:
    """How the first student does beside the first teacher, in the mean over the data sets."""
    for table in tables:
        teacher = next((c for c in table.columns if c.head == "elaborate prompt"), None)
        student = next((c for c in table.columns if c.head == "distilled, elaborate prompt"), None)
        if teacher is None or student is None:
            continue
        pairs = [
            (mine.value, theirs.value)
            for row in table.rows
            if (mine := row.scores.get(student.arm)) and (theirs := row.scores.get(teacher.arm))
            if mine.value is not None and theirs.value is not None
        ]
        if pairs:
            what, sides = WORDS[table.measure], zip(*pairs, strict=True)
            own, taught = (in_words(fmean(side), table.measure) for side in sides)
            over = plural(len(pairs), "data set")
            return (
                f"{student.model} comes to {what.format(own)} over {over}, its teacher "
                f"{teacher.model} to {what.format(taught)}."
            )
    return None


WORDS = {
    "accuracy": "{}% of right answers",
    "entity_density": "an entity density of {}",
    "judge": "a rating of {}",
}
"""What a figure of each measure is."""


def _answered(data: TeacherDataReport) -> Verdict:
    if not data.teachers:
        return Verdict("No teacher was asked about the rows that students learn from.", "")
    # One that is asked in two ways is one teacher.
    who = plural(len({teacher.name.partition(",")[0] for teacher in data.teachers}), "teacher")
    of = "an unknown number of" if data.asked is None else count(data.asked)
    cost = (
        "at a cost that is unknown"
        if data.money is None
        else f"for {money(data.money, data.currency)}"
    )
    sentence = f"{who} answered {count(data.answered)} of {of} questions {cost}."
    return Verdict(sentence, " ".join(_evidence(data)))


def _evidence(data: TeacherDataReport) -> list[str]:
    rows = plural(data.rows.total, "row")
    told = [f"A question is one of {rows}, put to one teacher once."]
    if data.answered:
        rejected = sum(sum(teacher.rejected.values()) for teacher in data.teachers)
        cut = sum(teacher.cut for teacher in data.teachers)
        share = percent(cut / data.answered)
        told.append(
            f"Rejected: {count(rejected)}. Cut at the limit of tokens: {count(cut)} ({share})."
        )
    if data.total.tokens_in:
        share = percent(data.total.tokens_cached / data.total.tokens_in)
        told.append(f"Of the prompts' tokens, {share} came from a prefix cache.")
    return told
