"""Input rows together with what teachers answered to them, a shard in memory at a time.

Answers are stored teacher by teacher, each in the order of the rows that they answer: so both are
read once, side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.recipe_prompts import Answer
from core.run import StageFolder
from core.stage import StageContext
from pipelines.answers import AnswerReader, Found, NotFound
from pipelines.choosing import chosen_of
from pipelines.row_work import Row

Answers = dict[str, list[Row]]
"""By teacher: what it answered to one row, in the order of its samples."""


def answered_rows(
    inputs: StageFolder, answers: StageFolder | None, columns: Sequence[str] = ()
) -> Iterator[list[tuple[Row, Answers]]]:
    """The rows of each shard of the inputs, with their answers.

    An input row that repeats an earlier one has none: they stand at the first.

    Args:
        inputs: Finished stage of `core.rows.INPUT`.
        answers: Finished stage of `core.rows.ANSWERED` to them; None where nobody was asked.
        columns: Of the answers, beside those that are always read.
    """
    cursors = _cursors(answers, columns) if answers else {}
    for table in inputs.iter_shards():
        rows = table.to_pylist()
        items = {row["id"] for row in rows}
        by_item: dict[str, Answers] = {}
        for teacher, cursor in cursors.items():
            for answer in cursor.take(items):
                by_item.setdefault(answer["item"], {}).setdefault(teacher, []).append(answer)
        yield [(row, by_item.pop(row["id"], {})) for row in rows]


def _cursors(answers: StageFolder, columns: Sequence[str]) -> dict[str, _Cursor]:
    manifest = answers.manifest()
    assert manifest is not None, "the workflow runs the stages in their order"
    wanted = ["id", "item", "sample", "text", "replies", *columns]
    keys: dict[str, list[str]] = {}
    for key in manifest.shards:
        teachers = answers.rows.read_table(f"{key}.parquet", ["teacher"])["teacher"]
        if len(teachers):  # a shard is of one teacher
            keys.setdefault(teachers[0].as_py(), []).append(key)
    return {teacher: _Cursor(answers, listed, wanted) for teacher, listed in keys.items()}


class _Cursor:
    """One teacher's answers, taken in the order of the rows that they answer."""

    def __init__(self, answers: StageFolder, keys: list[str], columns: list[str]) -> None:
        self._tables = (answers.rows.read_table(f"{key}.parquet", columns) for key in keys)
        self._left: list[Row] = []

    def take(self, items: set[str]) -> list[Row]:
        """The next answers, as long as they are to these rows."""
        found: list[Row] = []
        while True:
            found += [row for row in self._left if row["item"] in items]
            self._left = [row for row in self._left if row["item"] not in items]
            if self._left:
                return found
            table = next(self._tables, None)
            if table is None:
                return found
            self._left = table.to_pylist()


def answers_of(context: StageContext) -> dict[str, Answer | None]:
    """By teacher: how its prompt says that the answer is found; None where it does not say.

    Args:
        context: Of a stage with the setting `answers`, and `chosen` where prompts were.
    """
    chosen = chosen_of(context)
    said = {
        teacher: chosen.get(teacher, {}).get("answer", answer)
        for teacher, answer in context.settings["answers"].items()
    }
    return {
        teacher: None if answer is None else Answer.model_validate(answer)
        for teacher, answer in said.items()
    }


@dataclass(frozen=True)
class Vote:
    """What one teacher's samples come to."""

    found: Found
    """The most frequent answer, with the rationale of the first sample that gave it; of equally
    frequent ones the first."""
    share: float
    """Of the samples, those without an answer included."""
    outvoted: int
    """Samples with another answer."""


def read_samples(
    answers: Sequence[Row], reader: AnswerReader, choices: Sequence[str]
) -> list[Found | NotFound]:
    """What each of a teacher's answers to one row is read as."""
    return [reader.read(row["text"], choices) for row in answers]


def vote(samples: Sequence[Found | NotFound]) -> Vote | None:
    """The majority of a teacher's samples of one row; None where none has an answer."""
    found = [sample for sample in samples if isinstance(sample, Found)]
    if not found:
        return None
    # Counter keeps equally frequent answers in their order.
    key, votes = Counter(one.key for one in found).most_common(1)[0]
    winner = next(one for one in found if one.key == key)
    return Vote(winner, votes / len(samples), len(found) - votes)
