"""Asking any number of teachers about the same rows, in one pass, each in its own words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from core.identity import content_id
from core.models import teacher_revision
from core.recipe_teachers import RecordedTeacher, Teacher
from core.rows import ANSWERED
from core.run import StageFolder
from core.stage import StageContext, StageResult
from core.teacher import Engine, Exchange, Sampling, TopTokens, Usage
from pipelines.asked_texts import FILLING_ERRORS, Asked, fill_in
from pipelines.choosing import chosen_of
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards


@dataclass(frozen=True)
class AskTeacher:
    """Asks one teacher about one row; the work of a planned row {id, item, sample, fields}."""

    engine: Engine
    user: str
    """Jinja text, filled in with the row's fields."""
    system: str
    """The same of what stands before it."""
    sampling: Sampling
    seeded: bool
    turns: str | None = None
    """Of conversations: the field with what the user says, one text or several."""

    schema = ANSWERED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Fill in the prompt and take the answer as it comes."""
        asked = self._filled_in(row)
        if isinstance(asked, Rejection):
            return asked
        replies: list[str] = []
        usage, cut = Usage(), False
        for number, prompt in enumerate(asked.turns):
            history = tuple(zip(asked.turns, replies, strict=False))
            answer = await self.engine.complete(prompt, self._sampling(row, asked.system, history))
            usage += answer.usage
            cut = cut or answer.finish == "length"
            of = f" in turn {number + 1} of {len(asked.turns)}" if len(asked.turns) > 1 else ""
            if answer.finish == "error":
                return Rejection(answer.reason, f"{answer.error}{of}", row)
            if not answer.text.strip():
                return Rejection("empty", f"the teacher wrote nothing{of}", row)
            replies.append(answer.text)
        return {
            "id": row["id"],
            "item": row["item"],
            "teacher": self.engine.teacher,
            "sample": row["sample"],
            "text": answer.text,
            "replies": replies if self.turns else None,
            "finish": "length" if cut else answer.finish,
            "usage": vars(usage),
            **_flat(answer.top),
        }

    def _filled_in(self, row: Row) -> Asked | Rejection:
        try:
            asked = fill_in(self.user, self.system, json.loads(row["fields"]), self.turns)
        except FILLING_ERRORS as error:
            return Rejection("no-field", f"the prompt cannot be filled in: {error}", row)
        if not all(turn.strip() for turn in asked.turns):
            return Rejection("empty", "the prompt is empty with this row's fields", row)
        return asked

    def _sampling(self, row: Row, system: str, history: tuple[Exchange, ...]) -> Sampling:
        if not self.seeded and not row["sample"] and not system and not history:
            return self.sampling  # as most rows want it: a copy would cost as much as a look-up
        seed = int(row["id"][:8], 16) if self.seeded else None
        system = system or self.sampling.system
        return replace(
            self.sampling, seed=seed, number=row["sample"], system=system, history=history
        )


def _flat(top: TopTokens | None) -> dict[str, Any]:
    if top is None:
        return {"token_ids": None, "top_ids": None, "top_logprobs": None}
    return {
        "token_ids": top.token_ids,
        "top_ids": top.top_ids.ravel(),
        "top_logprobs": top.top_logprobs.ravel(),
    }


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

    Settings: `ask`, by teacher: `prompt`, its text, or `user` and `system`; `seeded`; `sampling`;
    `json_schema`, of the prompt, where it has one;
    `samples`, by teacher; `turns`, the field of conversations or None. What is chosen for a
    teacher's prompt and sampling stands in the stage `chosen` instead.
    Inputs: `inputs`, input rows; `chosen`, where something is.
    """
    lanes = []
    teachers = context.recipe.recipe.teachers
    # Engines last: they take minutes to start, and a mistake in another teacher shows at once.
    chosen = chosen_of(context)
    for name in sorted(context.settings["ask"], key=lambda n: isinstance(teachers[n], Teacher)):
        engine = context.engine(name)
        settings = {**chosen.get(name, {}), **context.settings["ask"][name]}
        said = {**settings["sampling"], "stop": tuple(settings["sampling"]["stop"])}
        schema = settings.get("json_schema")
        if schema is not None and not isinstance(teachers[name], RecordedTeacher):
            said["json_schema"] = schema
        sampling, prompt = Sampling(**said), settings["prompt"]
        texts = {"user": prompt, "system": ""} if isinstance(prompt, str) else prompt
        parts = {
            "prompt": prompt,
            "model": teacher_revision(name, context.recipe),
            "teacher": name,
            "sampling": sampling.parts(),
            "seed": context.recipe.recipe.seed,
        }
        plan = plan_questions(context.inputs["inputs"], context.settings["samples"][name], parts)
        turns = context.settings["turns"]
        work = AskTeacher(
            engine, **texts, sampling=sampling, seeded=settings["seeded"], turns=turns
        )
        # As the fingerprint of the stage has it, of this teacher alone.
        engine_arguments = getattr(teachers[name], "engine", None)
        maker = content_id(parts, turns, settings["seeded"], engine_arguments)
        lanes.append(Lane(engine, plan, work, maker))
    return run_shards(context, lanes)
