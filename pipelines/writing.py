"""A teacher writes items from a few examples: step by step, or whole as JSON (2412.09807).

The paper's decomposed way writes a question, its right answer and wrong answers in three calls.
Where the task has fixed choices the answers are known, so one call writes a question for a given
answer; answers take turns, which balances the labels by construction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from core.identity import content_id
from core.models import teacher_revision
from core.rows import GENERATED
from core.stage import StageContext, StageResult
from core.teacher import Engine, Sampling
from pipelines.fewshot_prompts import FOLDER, FewshotPrompts
from pipelines.prompt_files import prompt_version
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards


@dataclass(frozen=True)
class WriteItem:
    """Writes one item; the work of a planned row {id, answer, order}."""

    prompts: FewshotPrompts
    engine: Engine
    teacher: str
    mode: str
    sampling: Sampling

    schema = GENERATED

    async def __call__(self, row: Row) -> Row | Rejection:
        """Ask the teacher for one item and read what it wrote."""
        if self.mode == "json":
            prompt = self.prompts.write_json(row["order"])
        else:
            prompt = self.prompts.write_question(row["answer"], row["order"])
        completion = await self.engine.complete(prompt, self.sampling)
        if completion.finish == "error":
            return Rejection(completion.reason, completion.error, prompt)
        item = (
            read_json_item(completion.text, self.prompts.task.choices)
            if self.mode == "json"
            else read_question(completion.text, completion.finish, row["answer"])
        )
        if isinstance(item, Rejection):
            return item
        answer, question = item
        return {
            "id": row["id"],
            "teacher": self.teacher,
            "mode": self.mode,
            "question": question,
            "choices": self.prompts.task.choices,
            "intended": answer,
            "usage": asdict(completion.usage),
        }


def read_question(text: str, finish: str, answer: int) -> tuple[int, str] | Rejection:
    """Take the first line that a teacher wrote as the question."""
    question = text.strip().split("\n")[0].strip()
    if not question:
        return Rejection("empty", "the teacher wrote nothing", text)
    if finish == "length":
        return Rejection("cut", "the teacher did not come to an end", text)
    return answer, question


def read_json_item(text: str, choices: list[str]) -> tuple[int, str] | Rejection:
    """Take a JSON item apart. Structured decoding gives valid JSON unless it is cut short."""
    try:
        # Not strict: structured decoding lets bare control characters into strings.
        item: Any = json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        return Rejection("unparseable", f"not JSON: {error.msg}", text)
    if not isinstance(item, dict) or not isinstance(item.get("question"), str):
        return Rejection("unparseable", "there is no text under 'question'", text)
    if item.get("answer") not in choices:
        return Rejection("unparseable", f"{item.get('answer')!r} is not one of the choices", text)
    if not item["question"].strip():
        return Rejection("empty", "the question is empty", text)
    return choices.index(item["answer"]), item["question"].strip()


def plan_items(
    count: int, choices: int, examples: int, parts: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Lay out items: choices take turns, and the order of the examples changes with each turn.

    Args:
        count: Items wanted.
        choices: Choices of the task.
        examples: Examples of the task.
        parts: Everything else that decides what is written: part of every id.
    """
    for sample in range(count):
        row = {"answer": sample % choices, "order": (sample // choices) % examples}
        yield {"id": content_id(parts, row, sample), **row}


def write_items(context: StageContext) -> StageResult:
    """Stage: let a teacher write items.

    Settings: `teacher`, `mode` (`decomposed` or `json`), `rows`, `sampling`.
    Inputs: `examples`, task rows.
    """
    settings = context.settings
    recipe = context.recipe.student_recipe
    teacher, mode = settings["teacher"], settings["mode"]
    examples = context.inputs["examples"].read().to_pylist()
    prompts = FewshotPrompts(recipe.task, examples)
    template = "write_json.j2" if mode == "json" else "write_question.j2"
    sampling = Sampling(
        **settings["sampling"],
        stop=("\n",),
        json_schema=prompts.json_schema() if mode == "json" else None,
    )
    parts = {
        "task": recipe.task.model_dump(exclude={"examples", "evaluation"}),
        "examples": [row["id"] for row in examples],
        "prompt": prompt_version(f"{FOLDER}/{template}"),
        "model": teacher_revision(teacher, context.recipe),
        "sampling": sampling.parts(),
        "seed": recipe.seed,
    }
    engine = context.engine(teacher)
    return run_shards(
        context,
        [
            Lane(
                engine,
                plan_items(settings["rows"], len(recipe.task.choices), len(examples), parts),
                WriteItem(prompts, engine, teacher, mode, sampling),
            )
        ],
    )
