"""Checks on what teachers wrote, before anything is paid for scoring it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from core.rows import GENERATED
from core.run import count_by_reason
from core.stage import StageContext, StageResult
from pipelines.shards import Rejection, rejected_table


def clean(context: StageContext) -> StageResult:
    """Stage: keep the items that are worth scoring.

    Settings: `min_words`, `max_words`.
    Inputs: `examples`, task rows; every other input is generated rows.
    """
    examples = context.inputs["examples"].read(["question"])["question"].to_pylist()
    items = [
        row
        for role, stage in context.inputs.items()
        if role != "examples"
        for row in stage.read().to_pylist()
    ]
    kept, rejections = clean_items(
        items, examples, context.settings["min_words"], context.settings["max_words"]
    )
    rejected = rejected_table(context.stage.stage, rejections)
    context.stage.commit_shard("rows", pa.Table.from_pylist(kept, schema=GENERATED), rejected)
    facts = {"rejected_by_mode": _by_mode(rejections), "kept_by_mode": _count(kept, "mode")}
    return StageResult(["rows"], len(kept), count_by_reason(rejected), facts)


def clean_items(
    items: Iterable[dict[str, Any]], examples: list[str], min_words: int, max_words: int
) -> tuple[list[dict[str, Any]], list[tuple[str, Rejection]]]:
    """Split generated items into those to keep and those to reject.

    Args:
        items: Generated rows.
        examples: The questions that the teacher was shown; a copy of one teaches nothing.
        min_words: Words of a question at least.
        max_words: Words of a question at most.
    """
    seen = {normal_form(question): "an example" for question in examples}
    kept: list[dict[str, Any]] = []
    rejections: list[tuple[str, Rejection]] = []
    for item in items:
        question, form = item["question"], normal_form(item["question"])
        words = len(question.split())
        if not form:
            rejection = Rejection("empty", "there are no letters or digits in it", item)
        elif words < min_words:
            rejection = Rejection("too-short", f"{words} words, at least {min_words} wanted", item)
        elif words > max_words:
            rejection = Rejection("too-long", f"{words} words, at most {max_words} wanted", item)
        elif form in seen:
            rejection = Rejection("duplicate", f"the same as {seen[form]}", item)
        else:
            seen[form] = f"item {item['id']}"
            kept.append(item)
            continue
        rejections.append((item["id"], rejection))
    return kept, rejections


def normal_form(text: str) -> str:
    """Text without case, punctuation and repeated blanks: equal forms are one question."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _by_mode(rejections: list[tuple[str, Rejection]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for _, rejection in rejections:
        mode = found.setdefault(rejection.original["mode"], {})
        mode[rejection.reason] = mode.get(rejection.reason, 0) + 1
    return found


def _count(rows: list[dict[str, Any]], key: str) -> dict[str, int]:
    values = [row[key] for row in rows]
    return {value: values.count(value) for value in dict.fromkeys(values)}
