"""Rows that benchmarks of training learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.rows import TEXT_TRAINING, TRAINING

RECIPES = Path(__file__).parents[1] / "recipes"
DESKS = ["business", "health", "politics", "sports", "technology"]
"""The choices of the demonstration's headlines."""

Question = dict[str, Any]
"""`question`, `choices`, `answer`, and perhaps a teacher's `rationale`."""


def headlines() -> list[Question]:
    """The demonstration's evaluation rows: short, and there in every checkout."""
    rows = _lines(RECIPES / "demo" / "evaluation.jsonl")
    return [
        {"question": row["question"], "choices": DESKS, "answer": row["answer"]} for row in rows
    ]


def commonsense() -> list[Question] | None:
    """CommonsenseQA with PaLM's rationales; None where its recipe's files are not written."""
    folder = RECIPES / "cqa_palm"
    if not (folder / "train.jsonl").exists():
        return None
    said = [row["text"] for row in _lines(folder / "palm_train.jsonl")]
    return [
        {**row, "rationale": text.partition("So the answer is")[0]}
        for row, text in zip(_lines(folder / "train.jsonl"), said, strict=True)
    ]


def choice_rows(questions: list[Question]) -> pa.Table:
    """For an encoder."""
    rows = [
        {
            "id": f"row-{number}",
            "question": row["question"],
            "choices": row["choices"],
            "answer": row["choices"].index(row["answer"]),
            "logits": None,
            "weight": 1.0,
            "source": "gold",
        }
        for number, row in enumerate(questions)
    ]
    return pa.Table.from_pylist(rows, schema=TRAINING)


def text_rows(questions: list[Question]) -> pa.Table:
    """For a student that writes."""
    rows = [
        {
            "id": f"row-{number}",
            "messages": [{"role": "user", "content": row["question"]}],
            "answer": row["answer"],
            "rationales": [{"teacher": "palm", "text": row["rationale"]}]
            if "rationale" in row
            else [],
            "token_ids": None,
            "top_ids": None,
            "top_logprobs": None,
            "weight": 1.0,
            "source": "gold",
        }
        for number, row in enumerate(questions)
    ]
    return pa.Table.from_pylist(rows, schema=TEXT_TRAINING)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
