"""Evaluation of methods whose answers are found in texts: teachers and students, on the same rows.

A text without an answer counts as wrong. What a teacher was asked in vain, say because nothing is
recorded, does not count: it is told beside.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import WorkError
from core.ledger import Entry
from core.models import model_folder
from core.recipe_answers import AnswerTask
from core.recipe_prompts import Answer
from core.recipe_section import Device
from core.rows import WRITTEN
from core.run import count_by_reason
from core.stage import StageContext, StageResult
from core.student_reading import StudentReading
from pipelines.answered_rows import answered_rows, answers_of, read_samples, vote
from pipelines.answers import AnswerReader, Found
from pipelines.asked_texts import FILLING_ERRORS, Asked, fill_in
from pipelines.choosing import chosen_of
from pipelines.in_context import origin
from pipelines.questions import Question, Questions, each, evaluation_questions
from pipelines.row_work import Rejection, Row, rejected_table

if TYPE_CHECKING:
    from pipelines.student_scores import ChoiceScores
    from pipelines.student_texts import Replies


def predict_teachers(context: StageContext) -> StageResult:
    """Stage: every teacher's answers to the evaluation rows, each the majority of its samples.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `answers`, as of
    `pipelines.extraction.extract`; `arms`, by teacher: what it is called in its answers.
    Inputs: `rows`, the evaluation rows; `answers`, what teachers answered to them; `shown`, the
    rows as teachers saw them, where these are others (`pipelines.in_context`).
    """
    evaluation = _Evaluation(context)
    questions = {question.id: question for question in evaluation.questions}
    readers = {
        teacher: AnswerReader(evaluation.task, answer)
        for teacher, answer in answers_of(context).items()
    }
    rows = []
    asked = context.inputs.get("shown", context.inputs["rows"])
    for shard in answered_rows(asked, context.inputs["answers"], ["usage"]):
        for row, by_teacher in shard:
            question = questions.get(origin(row))
            for teacher, listed in by_teacher.items() if question else ():
                assert question is not None, "asked in the line above"
                winner = vote(read_samples(listed, readers[teacher], question.choices))
                arm, usage = context.settings["arms"][teacher], listed[0]["usage"]
                replies = listed[0]["replies"] or [listed[0]["text"]]
                tokens = (usage["tokens_in"], usage["tokens_out"])
                found = winner.found if winner else None
                rows.append(evaluation.written(question, arm, replies, found, tokens))
    if not rows:
        raise WorkError(
            "the evaluation rows",
            "no teacher has answered one of them.",
            f"{context.inputs['answers'].rejected.location} has the reasons.",
        )
    return evaluation.commit(rows)


def predict_student(context: StageContext) -> StageResult:
    """Stage: a student's answers to the evaluation rows, behind the plain prompt or another.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `arm`, what it is called
    in its answers; `family`; `model`, that it is or was; `device`, a `core.recipe_section.Device`
    as a dictionary; `untrained`, of a student that has learnt nothing yet: `max_length`,
    `max_answer_length`, and `prompt`, `user`, `system` and `answer` of what it is asked, or None
    for the plain prompt; `score_choices`, whether one that writes is judged by the choice that it
    would most likely write, too.
    Inputs: `student`, with its Hugging Face folder, where it is trained; `rows`, the evaluation
    rows.
    """
    evaluation, arm = _Evaluation(context), context.settings["arm"]
    if context.settings["family"] == "encoder":
        from pipelines.evaluation import choose_tasks

        tasks = [_task(question) for question in evaluation.questions]
        return choose_tasks(context, arm, tasks, evaluation.rejections)
    from pipelines.student_texts import write

    untrained = context.settings["untrained"]
    if untrained is None:
        folder = model_folder(context.inputs["student"].folder.child("student").location)
        reading, prompt = StudentReading.of(folder), None
    else:
        folder, prompt = context.model(context.settings["model"]), untrained["prompt"]
        most = min(untrained["max_length"], _room(folder, untrained["max_answer_length"]))
        length = untrained["max_answer_length"]
        reading = StudentReading.of_base(context.settings["family"], most, length)
    reader, asked = evaluation.plain, {q.id: q.asked for q in evaluation.questions}
    if prompt is not None:
        prompt = {**prompt, **_chosen_prompt(context)}
        answer = prompt["answer"] and Answer.model_validate(prompt["answer"])
        reader, asked = AnswerReader(evaluation.task, answer), evaluation.asked_by(prompt)
    device, began = Device.model_validate(context.settings["device"]), time.monotonic()
    written = write(folder, list(asked.items()), reading, device)
    scores: dict[str, ChoiceScores] = {}
    if context.settings["score_choices"]:
        from pipelines.student_scores import score_choices

        listed = [(q.id, asked[q.id], q.choices) for q in evaluation.questions if q.id in asked]
        scores = score_choices(folder, listed, reading, device)
    _account(context, device, written, scores, time.monotonic() - began)
    rows = []
    for question in evaluation.questions:
        if question.id in written:
            replies = written[question.id]
            found = reader.read(replies.texts[-1], question.choices)
            answered = found if isinstance(found, Found) else None
            tokens = (replies.tokens_in, replies.tokens_out)
            row = evaluation.written(question, arm, replies.texts, answered, tokens)
            rows.append(row | _by_choice(question, scores.get(question.id)))
    return evaluation.commit(rows)


def _by_choice(question: Question, scores: ChoiceScores | None) -> Row:
    """What the scores of a question's choices say of a student's answer."""
    if scores is None:
        return {}
    assert question.right is not None, "only such rows are judged where there are choices"
    return {
        "choice_logprobs": scores.logprobs,
        "right_choice": scores.likeliest == question.right.choice,
    }


def _chosen_prompt(context: StageContext) -> dict[str, Any]:
    """Of the prompt that was chosen for the first teacher, where one was: its texts and answer."""
    chosen: dict[str, Any] = next(iter(chosen_of(context).values()), {})
    if "prompt" not in chosen:
        return {}
    texts = chosen["prompt"]
    whole = {"user": texts, "system": ""} if isinstance(texts, str) else texts
    return {**whole, "answer": chosen["answer"]}


def _account(
    context: StageContext,
    device: Device,
    written: Mapping[str, Replies],
    scores: Mapping[str, ChoiceScores],
    seconds: float,
) -> None:
    """Put what a student used into the ledger: all that was no answering was its start."""
    useful = sum(replies.seconds for replies in written.values())
    useful += sum(one.seconds for one in scores.values())
    context.write_entry(
        Entry(
            stage=context.stage.stage,
            attempt=context.attempt,
            device=device.kind,
            model=context.settings["model"],
            requests=sum(len(replies.texts) for replies in written.values()) + len(scores),
            tokens_in=sum(replies.tokens_in for replies in written.values())
            + sum(one.tokens for one in scores.values()),
            tokens_out=sum(replies.tokens_out for replies in written.values()),
            rows=len(written),
            startup_seconds=device.count * (seconds - useful),
            useful_seconds=device.count * useful,
            wall_seconds=seconds,
        )
    )


class _Evaluation:
    """The evaluation rows of a stage as questions, and what is told of the answers."""

    def __init__(self, context: StageContext) -> None:
        self.task = AnswerTask.model_validate(context.settings["task"])
        self.plain = AnswerReader(self.task, self.task.plain.answer)
        """Reads what is written behind the plain prompt."""
        self._context = context
        self.questions, self.rejections = evaluation_questions(
            context.inputs["rows"], Questions(self.task)
        )
        if not self.questions:
            first = f" The first: {self.rejections[0][1].detail}." if self.rejections else ""
            raise WorkError(
                "the evaluation rows",
                f"none of them can be asked and judged.{first}",
                "Change task.prompt, task.gold or evaluation.columns in the recipe.",
            )

    def asked_by(self, prompt: dict[str, Any]) -> dict[str, Asked]:
        """What another prompt than the plain one asks, by the questions' ids.

        A row that does not fit it is rejected.
        """
        wanted = {question.id for question in self.questions}
        asked: dict[str, Asked] = {}
        for row in each(self._context.inputs["rows"]):
            if row["id"] not in wanted or row["id"] in asked:
                continue
            fields = json.loads(row["fields"])
            try:
                asked[row["id"]] = fill_in(
                    prompt["user"], prompt["system"], fields, self.task.turns
                )
            except FILLING_ERRORS as error:
                told = f"the prompt cannot be filled in: {error}"
                self.rejections.append((row["id"], Rejection("no-field", told, row)))
        return asked

    def written(
        self,
        question: Question,
        arm: str,
        replies: list[str],
        found: Found | None,
        tokens: tuple[int | None, int | None],
    ) -> Row:
        """A model's answer to a question, as a row of `core.rows.WRITTEN`.

        Args:
            question: What it was asked.
            arm: What the model is called.
            replies: What it wrote, to each turn.
            found: The answer in it.
            tokens: Of its prompts, and that it wrote.
        """
        right = question.right if self.task.measure == "accuracy" else None
        converses = self.task.converses
        return {
            "id": question.id,
            "model": arm,
            "question": question.text,
            "answer": right and right.text,
            "text": replies[-1],
            "turns": question.asked.turns if converses else None,
            "replies": replies if converses else None,
            "predicted": found.text if found else None,
            "right": right and (found is not None and found.key == right.key),
            "tokens_in": tokens[0],
            "tokens_out": tokens[1],
        }

    def commit(self, rows: list[Row]) -> StageResult:
        """Commit the answers of models that write."""
        stage = self._context.stage
        rejected = rejected_table(stage.stage, self.rejections)
        stage.commit_shard("rows", pa.Table.from_pylist(rows, schema=WRITTEN), rejected)
        return StageResult(
            ["rows"], len(rows), count_by_reason(rejected), figures(rows, len(self.questions))
        )


def figures(rows: Sequence[Row], questions: int) -> dict[str, Any]:
    """By model: accuracy, and how many texts had no answer or were never written.

    Where choices were scored, `choice_accuracy` is how often the likeliest was the right one.

    Args:
        rows: Of `core.rows.WRITTEN`.
        questions: That each model was asked.
    """
    answered = Counter(row["model"] for row in rows)
    judged = Counter(row["model"] for row in rows if row["right"] is not None)
    right = Counter(row["model"] for row in rows if row["right"])
    unparsed = Counter(row["model"] for row in rows if row["predicted"] is None)
    found: dict[str, Any] = {
        "accuracy": {model: right[model] / number for model, number in judged.items()},
        "unparsed": {model: unparsed[model] for model in answered},
        "unanswered": {model: questions - number for model, number in answered.items()},
    }
    scored = Counter(row["model"] for row in rows if row.get("right_choice") is not None)
    if scored:
        likeliest = Counter(row["model"] for row in rows if row.get("right_choice"))
        found["choice_accuracy"] = {m: likeliest[m] / number for m, number in scored.items()}
    return found


def _room(folder: Path, answer: int) -> int:
    """Tokens of a prompt that a model takes beside so many of an answer."""
    from transformers import AutoConfig

    most = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
    return sys.maxsize if most is None else int(most) - answer


def _task(question: Question) -> Row:
    """A question as a task row."""
    assert question.right is not None, "evaluation rows have one"
    return {
        "id": question.id,
        "question": question.text,
        "choices": question.choices,
        "answer": question.right.choice,
        "difficulty": None,
    }
