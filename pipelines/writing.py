"""A teacher writes items from a few examples: step by step, or whole as JSON (2412.09807).

The paper's decomposed way writes a question, its right answer and wrong answers in three calls.
Where the task has fixed choices the answers are known, so one call writes a question for a given
answer; answers take turns, which balances the labels by construction. The ways themselves are in
`item_ways.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.identity import content_id
from core.models import teacher_revision
from core.rows import GENERATED
from core.stage import StageContext, StageResult
from core.teacher import Engine, Sampling
from pipelines.fewshot_prompts import FOLDER, FewshotPrompts
from pipelines.item_ways import NotWritten, Scribe, Way, way_of
from pipelines.prompt_files import prompt_version
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards
from pipelines.tasks import storable


@dataclass(frozen=True)
class WriteItem:
    """Writes one item; the work of a planned row {id, order}, with `answer` or `subject`."""

    prompts: FewshotPrompts
    engine: Engine
    teacher: str
    mode: str
    way: Way
    sampling: Sampling

    schema = GENERATED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Ask the teacher for one item and read what it wrote."""
        subject = row.get("subject")
        scribe = Scribe(self.engine, self.sampling)
        try:
            item = await self.way.item(self.prompts.about(subject), scribe, row)
        except NotWritten as error:
            return error.rejection
        return {
            "id": row["id"],
            "teacher": self.teacher,
            "mode": self.mode,
            # JSON can hold what UTF-8 cannot.
            "question": storable(item.question),
            "choices": [storable(choice) for choice in item.choices],
            "intended": item.answer,
            "subject": subject,
            "usage": asdict(scribe.usage),
        }


def plan_items(
    count: int, turns: list[dict[str, Any]], orders: int, parts: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Lay out items that take turns; the order of the examples changes with each round of turns.

    Args:
        count: Items wanted.
        turns: What each item of a round is for: an answer, or a subject.
        orders: Orders of the examples.
        parts: Everything else that decides what is written: part of every id.
    """
    for sample in range(count):
        row = {**turns[sample % len(turns)], "order": (sample // len(turns)) % orders}
        yield {"id": content_id(parts, row, sample), **row}


def write_items(context: StageContext) -> StageResult:
    """Stage: let a teacher write items.

    Settings: `teacher`; `mode` (`decomposed` or `json`); `rows`; `sampling`; `structured`, of JSON:
    whether it is held to a schema; `negatives`, where rows have choices of their own.
    Inputs: `examples`, task rows.
    """
    settings = context.settings
    recipe = context.recipe.student_recipe
    teacher, mode = settings["teacher"], settings["mode"]
    examples = context.inputs["examples"].read().to_pylist()
    prompts = FewshotPrompts(recipe.task, examples)
    choices = recipe.task.choices
    way = way_of(mode, settings.get("negatives"))
    sampling = Sampling(**settings["sampling"], stop=("\n",))
    if mode == "json" and settings["structured"]:
        schema = (
            prompts.json_schema() if choices else prompts.own_json_schema(settings["negatives"])
        )
        sampling = replace(sampling, json_schema=schema)
    parts = {
        "task": recipe.task.words,
        "examples": [row["id"] for row in examples],
        "prompt": [prompt_version(f"{FOLDER}/{name}") for name in way.templates],
        "model": teacher_revision(teacher, context.recipe),
        "sampling": sampling.parts(),
        "seed": recipe.seed,
    }
    turns: list[dict[str, Any]] = [{"answer": number} for number in range(len(choices or ()))]
    if choices is None:
        parts["way"] = asdict(way)  # type: ignore[call-overload]
        turns = [{"subject": one} for one in dict.fromkeys(row["subject"] for row in examples)]
    of_one = len(examples) if choices else len(prompts.about(turns[0]["subject"]).examples)
    engine = context.engine(teacher)
    return run_shards(
        context,
        [
            Lane(
                engine,
                plan_items(settings["rows"], turns, of_one, parts),
                WriteItem(prompts, engine, teacher, mode, way, sampling),
            )
        ],
    )
