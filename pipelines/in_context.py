"""What teachers see beside a row's own fields: examples, and the right answer (2402.04616).

`examples` are rows with right answers: all of their fields, and `right`. `right` of the row itself
has `text` and, of a choice, `letter`, where the teacher is told it (teacher forcing); otherwise it
is null. `shown_of` is the id of the row that all of this stands beside. Fields of the file with
these names are replaced.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UseError
from core.identity import content_id
from core.recipe_answers import AnswerTask
from core.recipe_in_context import InContext
from core.rows import INPUT
from core.run import StageFolder
from core.stage import StageContext, StageResult
from pipelines.answers import Found
from pipelines.permutations import LETTERS
from pipelines.plan import sample_rows
from pipelines.questions import Question, Questions, each
from pipelines.row_work import Rejection, Row, rejected_table
from pipelines.shard_writer import ShardWriter

SHOWN_OF = "shown_of"
"""The field with the id of the row that the others stand beside."""


@dataclass(frozen=True)
class Example:
    """A row that may be shown."""

    id: str
    question: str
    """What a student is asked about it."""
    fields: dict[str, Any]
    """Its own, and `right`."""


Chooser = Callable[[list[Question]], list[list[int]]]
"""Numbers of the examples of each question, in the order of showing."""


def show(context: StageContext) -> StageResult:
    """Stage: rows with all that teachers see of them.

    A row that no student can be asked about, or that has no right answer where one is wanted, is
    rejected: nobody is asked about it.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `in_context`, a
    `core.recipe_in_context.InContext` as a dictionary; `forced`, whether teachers are told the
    right answer; `seed`, of the draw.
    Inputs: `inputs`, input rows; `pool`, the rows that examples are taken from.

    Raises:
        UseError: Examples are wanted, and no row can be one.
    """
    settings = context.settings
    task = AnswerTask.model_validate(settings["task"])
    shown = InContext.model_validate(settings["in_context"])
    needs_answer = settings["forced"] or task.labels == "gold"
    questions = Questions(task)
    pool = _pool(context.inputs["pool"], questions, shown.pool) if shown.examples else []
    choose = _chooser(context, shown, pool)
    made = ShardWriter(context, INPUT, named="")
    for table in context.inputs["inputs"].iter_shards():
        asked: list[tuple[Row, Question]] = []
        rejections: list[tuple[str, Rejection]] = []
        for row in table.to_pylist():
            question = questions.with_right_answer(row) if needs_answer else questions.of(row)
            if isinstance(question, Rejection):
                rejections.append((row["id"], question))
            else:
                asked.append((row, question))
        chosen = choose([question for _, question in asked])
        rows = [
            _row(row, question, [pool[n].fields for n in numbers], forced=settings["forced"])
            for (row, question), numbers in zip(asked, chosen, strict=True)
        ]
        made.write(rows, rejected_table(context.stage.stage, rejections))
    return made.result({"pool": len(pool)})


def origin(row: Row) -> str:
    """The id of the row that a shown row was made of; its own where nothing is shown."""
    found: str = json.loads(row["fields"]).get(SHOWN_OF, row["id"])
    return found


def draw(row_id: str, pool: Sequence[str], number: int, seed: int) -> list[int]:
    """Numbers of examples that are drawn for a row, the same ones on every machine.

    Args:
        row_id: The row's.
        pool: Ids of the examples.
        number: Wanted; all of them where there are no more.
        seed: Another one draws others.
    """

    def place(one: int) -> bytes:
        return blake2b(f"{seed}.{row_id}.{pool[one]}".encode(), digest_size=8).digest()

    return heapq.nsmallest(number, range(len(pool)), key=place)


def nearest(queries: np.ndarray, pool: np.ndarray, number: int) -> np.ndarray:
    """The most alike of a pool, by the cosine of unit vectors; of equals the first.

    Args:
        queries: [Q, D] float.
        pool: [P, D] float.
        number: Wanted.

    Returns:
        int64 [Q, min(number, P)], the most alike first.
    """
    return np.argsort(-(queries @ pool.T), axis=1, kind="stable")[:, :number]


def _row(row: Row, question: Question, examples: list[dict[str, Any]], *, forced: bool) -> Row:
    fields = json.loads(row["fields"])
    fields |= {
        "examples": examples,
        "right": _right(question.right) if forced and question.right else None,
        SHOWN_OF: row["id"],
    }
    text = json.dumps(fields, ensure_ascii=False)
    return {"id": content_id(text), "fields": text}


def _right(found: Found) -> dict[str, str | None]:
    letter = LETTERS[found.choice] if found.choice is not None else None
    return {"text": found.text, "letter": letter}


def _pool(rows: StageFolder, questions: Questions, most: int) -> list[Example]:
    """The rows that can be shown, drawn by their ids.

    Raises:
        UseError: There is none.
    """

    def with_answers() -> Iterator[Row]:
        for row in each(rows):
            if not isinstance(question := questions.with_right_answer(row), Rejection):
                yield {**row, "question": question}

    found = []
    for row in sample_rows(with_answers(), most):
        question = row["question"]
        fields = json.loads(row["fields"]) | {"right": _right(question.right)}
        found.append(Example(row["id"], _folded(question.text), fields))
    if not found:
        raise UseError(
            "in_context",
            "no row can be shown as an example: none has a right answer.",
            "Check task.gold and in_context.file, or set in_context.examples to 0.",
        )
    return found


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _chooser(context: StageContext, shown: InContext, pool: list[Example]) -> Chooser:
    """What chooses among the pool.

    A row is no example of itself, nor is another one with the same question: it would give the
    answer away.
    """
    if not pool:
        return lambda questions: [[] for _ in questions]
    if shown.chosen == "random":
        return partial(_drawn, pool, shown.examples, context.settings["seed"])
    from pipelines.embeddings import embed  # loads Ray

    folder = context.model(shown.embedding)
    vectors = embed(folder, [one.question for one in pool])
    return partial(_alike, pool, shown.examples, folder, vectors)


def _drawn(
    pool: list[Example], number: int, seed: int, questions: list[Question]
) -> list[list[int]]:
    ids = [one.id for one in pool]
    same = _same_questions(pool)
    return [
        _without(
            draw(question.id, ids, number + len(same.get(_folded(question.text), ())), seed),
            same.get(_folded(question.text), frozenset()),
            number,
        )
        for question in questions
    ]


def _alike(
    pool: list[Example],
    number: int,
    folder: Path,
    vectors: np.ndarray,
    questions: list[Question],
) -> list[list[int]]:
    from pipelines.embeddings import embed

    if not questions:
        return []
    texts = [_folded(question.text) for question in questions]
    same = _same_questions(pool)
    most = number + max((len(same.get(text, ())) for text in texts), default=0)
    found = nearest(embed(folder, texts), vectors, most)
    return [
        _without(row.tolist(), same.get(text, frozenset()), number)[::-1]
        for text, row in zip(texts, found, strict=True)
    ]


def _same_questions(pool: list[Example]) -> dict[str, frozenset[int]]:
    """By question: the numbers of the examples that have it."""
    found: dict[str, frozenset[int]] = {}
    for number, one in enumerate(pool):
        found[one.question] = found.get(one.question, frozenset()) | {number}
    return found


def _without(numbers: list[int], left_out: frozenset[int], most: int) -> list[int]:
    return [number for number in numbers if number not in left_out][:most]
