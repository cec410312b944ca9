"""Judges: models that rate what others wrote, or say which of two was better.

A rating is asked for by several prompts, as judges are sensitive to their words (2410.18588,
section 4.2); what cannot be read as a rating is a rejected row, and counted. Of a conversation each
reply is rated, with all that was said before it. Two models are compared in both orders, so that it
shows where a judge prefers a place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from core.identity import content_id
from core.models import teacher_revision
from core.recipe_answers import AnswerTask
from core.recipe_prompts import Answer
from core.rows import COMPARED, RATED
from core.stage import StageContext, StageResult
from core.teacher import Engine, Sampling
from pipelines.asked_texts import FILLING_ERRORS, fill_in
from pipelines.judge_words import read_criteria, read_rating, read_verdict
from pipelines.prompt_files import lettered
from pipelines.questions import Questions, evaluation_questions
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards

Prompts = dict[str, dict[str, Any]]
"""By name: `user` and `system` of a prompt, its `answer` as a dictionary, or None, and its
`json_schema`, where it has one."""


@dataclass(frozen=True)
class _Judge:
    """Asks a judge about one planned row, which has `prompt` and what it is filled in with."""

    engine: Engine
    prompts: Prompts
    sampling: Sampling

    async def ask(self, row: Row) -> tuple[str, Row] | Rejection:
        """What it wrote, and what that took."""
        prompt = self.prompts[row["prompt"]]
        try:
            asked = fill_in(prompt["user"], prompt["system"], json.loads(row["fields"]))
        except FILLING_ERRORS as error:
            return Rejection("no-field", f"the judge's prompt cannot be filled in: {error}", row)
        sampling = self.sampling
        if asked.system:
            sampling = replace(sampling, system=asked.system)
        if prompt.get("json_schema"):
            sampling = replace(sampling, json_schema=prompt["json_schema"])
        answer = await self.engine.complete(asked.turns[0], sampling)
        if answer.finish == "error":
            return Rejection(answer.reason, answer.error, row)
        return answer.text, vars(answer.usage)

    def answer_of(self, row: Row) -> Answer | None:
        """How what it wrote is read."""
        found = self.prompts[row["prompt"]]["answer"]
        return None if found is None else Answer.model_validate(found)


@dataclass(frozen=True)
class Rate(_Judge):
    """Rates an answer, or a question; the work of a planned row."""

    scale: tuple[float, float] = (1.0, 5.0)
    criteria: tuple[str, ...] = ()

    schema = RATED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Ask for the rating and read it."""
        said = await self.ask(row)
        if isinstance(said, Rejection):
            return said
        text, usage = said
        rating = (
            read_criteria(text, list(self.criteria), self.scale)
            if self.criteria
            else read_rating(text, self.answer_of(row), self.scale)
        )
        if isinstance(rating, str):
            return Rejection("unparsed", rating, {**row, "text": text})
        kept = ("id", "item", "model", "turn", "prompt", "words")
        return {
            **{name: row[name] for name in kept},
            "judge": self.engine.teacher,
            "rating": rating.value,
            "criteria": [{"name": n, "rating": v} for n, v in rating.criteria.items()] or None,
            "text": text,
            "usage": usage,
        }


@dataclass(frozen=True)
class Compare(_Judge):
    """Says which of two conversations is better; the work of a planned row."""

    schema = COMPARED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Ask for the verdict and read it."""
        said = await self.ask(row)
        if isinstance(said, Rejection):
            return said
        text, usage = said
        verdict = read_verdict(text, self.answer_of(row))
        if verdict is None:
            told = "there is no verdict in what the judge wrote"
            return Rejection("unparsed", told, {**row, "text": text})
        kept = ("id", "item", "first", "second", "prompt", "words_first", "words_second")
        return {
            **{name: row[name] for name in kept},
            "judge": self.engine.teacher,
            "verdict": verdict,
            "text": text,
            "usage": usage,
        }


def rate_answers(context: StageContext) -> StageResult:
    """Stage: a judge's ratings of all replies to the evaluation rows.

    Settings: `judge`, the teacher; `prompts`, as of `Prompts`; `sampling`; `scale`.
    Inputs: what models wrote, under any role.
    """
    return _run(context, Rate, _answers, scale=tuple(context.settings["scale"]))


def rate_questions(context: StageContext) -> StageResult:
    """Stage: a judge's ratings of the evaluation rows themselves.

    Settings: as of `rate_answers`; `criteria`; `task`, a `core.recipe_answers.AnswerTask` as a
    dictionary.
    Inputs: `rows`, the evaluation rows.
    """
    settings = context.settings
    more = {"scale": tuple(settings["scale"]), "criteria": tuple(settings["criteria"])}
    return _run(context, Rate, _questions, **more)


def compare_answers(context: StageContext) -> StageResult:
    """Stage: which of two models a judge prefers, in both orders, by evaluation row.

    Settings: `judge`, `prompts` and `sampling` as of `rate_answers`; `pairs`, of models.
    Inputs: what models wrote, under any role.
    """
    return _run(context, Compare, _pairs)


def _run(context: StageContext, work: Any, subjects: Any, **more: Any) -> StageResult:
    settings = context.settings
    engine = context.engine(settings["judge"])
    said = settings["sampling"]
    sampling = Sampling(**{**said, "stop": tuple(said["stop"])})
    plan = _planned(subjects(context), settings, sampling, context)
    lane = Lane(engine, plan, work(engine, settings["prompts"], sampling, **more))
    return run_shards(context, [lane])


def _planned(
    subjects: Iterator[tuple[Row, Mapping[str, Any]]],
    settings: dict[str, Any],
    sampling: Sampling,
    context: StageContext,
) -> Iterator[Row]:
    """Every subject by every prompt; an id says all that decides what the judge says of it."""
    begins = {
        name: content_id(
            {key: value for key, value in prompt.items() if key != "answer"},
            teacher_revision(settings["judge"], context.recipe),
            settings["judge"],
            sampling.parts(),
            context.recipe.recipe.seed,
        )
        for name, prompt in settings["prompts"].items()
    }
    for row, fields in subjects:
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True)
        for name, begin in begins.items():
            said = json.dumps([begin, row, text], sort_keys=True).encode()
            row_id = blake2b(said, digest_size=16).hexdigest()
            yield {"id": row_id, **row, "prompt": name, "fields": text}


def _written(context: StageContext) -> Iterator[Row]:
    """All that models wrote, stage by stage."""
    for folder in context.inputs.values():
        for table in folder.iter_shards():
            yield from table.to_pylist()


def _exchanges(row: Row) -> list[dict[str, str]]:
    """A model's conversation about a row, or its one answer."""
    turns, replies = row["turns"] or [row["question"]], row["replies"] or [row["text"]]
    return [{"user": u, "reply": r} for u, r in zip(turns, replies, strict=True)]


def _answers(context: StageContext) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    for row in _written(context):
        said = _exchanges(row)
        for turn, exchange in enumerate(said):
            about = {"item": row["id"], "model": row["model"], "turn": turn}
            about["words"] = len(exchange["reply"].split())
            yield (
                about,
                {
                    "question": exchange["user"],
                    "response": exchange["reply"],
                    "history": said[:turn],
                    "answer": row["answer"],
                },
            )


def _questions(context: StageContext) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    task = AnswerTask.model_validate(context.settings["task"])
    questions, _ = evaluation_questions(context.inputs["rows"], Questions(task))
    for question in questions:
        text = question.text
        listed = lettered(question.choices) if question.choices and not task.choices else ""
        if listed not in text:  # a plain prompt may have listed them
            text = f"{text}\n\n{listed}"
        about = {"item": question.id, "model": "", "turn": 0, "words": len(text.split())}
        right = question.right.text if question.right else None
        yield about, {"question": text, "answer": right}


def _pairs(context: StageContext) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    by_item: dict[str, dict[str, list[dict[str, str]]]] = {}
    wanted = {model for pair in context.settings["pairs"] for model in pair}
    for row in _written(context):
        if row["model"] in wanted:
            by_item.setdefault(row["id"], {})[row["model"]] = _exchanges(row)
    for item, said in by_item.items():
        for one, other in context.settings["pairs"]:
            for first, second in ((one, other), (other, one)):
                if first in said and second in said:
                    about = {"item": item, "first": first, "second": second}
                    about |= {
                        f"words_{place}": sum(len(e["reply"].split()) for e in said[model])
                        for place, model in (("first", first), ("second", second))
                    }
                    yield about, {"first": said[first], "second": said[second]}
