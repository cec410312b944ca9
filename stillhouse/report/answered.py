"""What a run of teachers' answers came to: one sentence, and the figures below it."""

from __future__ import annotations

from stillhouse.report.teacher_data import TeacherDataReport
from stillhouse.report.verdict import Verdict
from stillhouse.report.wording import count, money, percent, plural


def answered(data: TeacherDataReport) -> Verdict:
    """Sum up a run of teacher data, or of students that learnt from it."""
    students = [one for one in data.judged if one.role == "student"]
    if not students:
        return _answered(data)
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


def _answered(data: TeacherDataReport) -> Verdict:
    if not data.teachers:
        return Verdict("No teacher was asked about the rows that students learn from.", "")
    who = plural(len(data.teachers), "teacher")
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
