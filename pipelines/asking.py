"""Asking any number of teachers about the same rows, in one pass, each in its own words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from typing import Any

import jinja2

from core.identity import content_id
from core.models import teacher_revision
from core.recipe_teachers import Teacher
from core.rows import ANSWERED
from core.run import StageFolder
from core.stage import StageContext, StageResult
from core.teacher import Engine, Sampling, TopTokens
from pipelines.prompt_files import compile_prompt
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards


@dataclass(frozen=True)
class AskTeacher:
    """Asks one teacher about one row; the work of a planned row {id, item, sample, fields}."""

    engine: Engine
    prompt: str
    """Jinja text, filled with the row's fields."""
    sampling: Sampling
    seeded: bool

    schema = ANSWERED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Fill in the prompt and take the answer as it comes."""
        try:
            prompt = _compiled(self.prompt).render(json.loads(row["fields"]))
        except (jinja2.UndefinedError, TypeError, ValueError) as error:
            return Rejection("no-field", f"the prompt cannot be filled in: {error}", row)
        if not prompt.strip():
            return Rejection("empty", "the prompt is empty with this row's fields", row)
        answer = await self.engine.complete(prompt, self._sampling(row))
        if answer.finish == "error":
            return Rejection(answer.reason, answer.error, row)
        if not answer.text.strip():
            return Rejection("empty", "the teacher wrote nothing", row)
        return {
            "id": row["id"],
            "item": row["item"],
            "teacher": self.engine.teacher,
            "sample": row["sample"],
            "text": answer.text,
            "finish": answer.finish,
            "usage": vars(answer.usage),
            **_flat(answer.top),
        }

    def _sampling(self, row: Row) -> Sampling:
        if not self.seeded and not row["sample"]:
            return self.sampling  # as most rows want it: a copy would cost as much as a look-up
        seed = int(row["id"][:8], 16) if self.seeded else None
        return replace(self.sampling, seed=seed, number=row["sample"])


def _flat(top: TopTokens | None) -> dict[str, Any]:
    if top is None:
        return {"token_ids": None, "top_ids": None, "top_logprobs": None}
    return {
        "token_ids": top.token_ids,
        "top_ids": top.top_ids.ravel(),
        "top_logprobs": top.top_logprobs.ravel(),
    }


@cache
def _compiled(prompt: str) -> jinja2.Template:
    return compile_prompt(prompt)


def plan_questions(inputs: StageFolder, samples: int, parts: dict[str, Any]) -> Iterator[Row]:
    """Lay out questions, a shard of the inputs at a time.

    Args:
        inputs: Finished stage of input rows.
        samples: Answers to each.
        parts: Everything else that decides an answer: part of every id.
    """
    begin = bytes.fromhex(content_id(parts))
    for table in inputs.iter_shards():
        for row in table.to_pylist():
            for sample in range(samples):
                said = begin + f"{row['id']}.{sample}".encode()
                row_id = blake2b(said, digest_size=16).hexdigest()
                yield {
                    "id": row_id,
                    "item": row["id"],
                    "sample": sample,
                    "fields": row["fields"],
                }


def ask(context: StageContext) -> StageResult:
    """Stage: every teacher's answers to every input row.

    Settings: `ask`, by teacher: `prompt`, `seeded`, `sampling`; `samples`, by teacher.
    Inputs: `inputs`, input rows.
    """
    lanes = []
    teachers = context.recipe.recipe.teachers
    # Engines last: they take minutes to start, and a mistake in another teacher shows at once.
    for name in sorted(context.settings["ask"], key=lambda n: isinstance(teachers[n], Teacher)):
        engine, settings = context.engine(name), context.settings["ask"][name]
        sampling = Sampling(**{**settings["sampling"], "stop": tuple(settings["sampling"]["stop"])})
        parts = {
            "prompt": settings["prompt"],
            "model": teacher_revision(name, context.recipe),
            "teacher": name,
            "sampling": sampling.parts(),
            "seed": context.recipe.recipe.seed,
        }
        plan = plan_questions(context.inputs["inputs"], context.settings["samples"][name], parts)
        work = AskTeacher(engine, settings["prompt"], sampling, settings["seeded"])
        lanes.append(Lane(engine, plan, work))
    return run_shards(context, lanes)
