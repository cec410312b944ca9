"""Which prompt a row's label and its rationale come from, drawn by the row's id alone.

So a draw needs no other row, is the same on every machine, and what is drawn at an explanation rate
is drawn at every higher one, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import pyarrow as pa

from core.rows import INPUT
from core.stage import StageContext, StageResult
from pipelines.plan import sample_rows
from pipelines.questions import each
from pipelines.row_work import Row, rejected_table
from pipelines.shard_writer import ShardWriter


@dataclass(frozen=True)
class Draw:
    """How rows are dealt out to prompts."""

    labels: Mapping[str, float] | None
    """By prompt: the share of the rows whose label it gives; None where nobody is asked for it."""
    rationales: Mapping[str, float]
    """By prompt: the share of the rationales that it gives."""
    share: float
    """Of the rows that have a rationale."""
    seed: int

    def label_by(self, row_id: str) -> str | None:
        """The prompt that gives a row's label."""
        return None if self.labels is None else _dealt(self.labels, self._number(row_id, "label"))

    def rationale_by(self, row_id: str) -> str | None:
        """The prompt that gives a row's rationale; None where it has none."""
        if self._number(row_id, "explained") >= self.share:
            return None
        return _dealt(self.rationales, self._number(row_id, "rationale"))

    def asked_by(self, row_id: str) -> set[str]:
        """The prompts that a row is put into."""
        found = (self.label_by(row_id), self.rationale_by(row_id))
        return {prompt for prompt in found if prompt is not None}

    def _number(self, row_id: str, what: str) -> float:
        """A number that is drawn from 0 to below 1."""
        digest = blake2b(f"{self.seed}.{what}.{row_id}".encode(), digest_size=6).digest()
        return int.from_bytes(digest) / 2**48


def _dealt(shares: Mapping[str, float], number: float) -> str:
    """The prompt in whose part of [0, 1) a number lies."""
    end = 0.0
    for prompt, share in shares.items():
        end += share
        if number < end:
            return prompt
    return prompt  # where rounding left the end a little below 1


def drawing_number(row_id: str, seed: int, what: str) -> str:
    """What a row is drawn by: a hash that has nothing to do with its id, by which others draw."""
    return blake2b(f"{seed}.{what}.{row_id}".encode(), digest_size=16).hexdigest()


def drawn_rows(rows: Iterable[Row], number: int, seed: int, what: str) -> list[Row]:
    """So many rows, those with the smallest drawing numbers, in their own order.

    Args:
        rows: All of them, read as a stream.
        number: At most.
        seed: Of the draw.
        what: Tells draws of one seed apart.
    """
    numbered = ({"id": drawing_number(row["id"], seed, what), "row": row} for row in rows)
    return [one["row"] for one in sample_rows(numbered, number)]


def draw_some(context: StageContext) -> StageResult:
    """Stage: so many rows, drawn by their ids.

    Settings: `rows`; `seed`.
    Inputs: `inputs`, input rows.
    """
    settings, inputs = context.settings, context.inputs["inputs"]
    rows = drawn_rows(each(inputs), settings["rows"], settings["seed"], "some")
    rejected = rejected_table(context.stage.stage, [])
    context.stage.commit_shard("rows", pa.Table.from_pylist(rows, schema=INPUT), rejected)
    return StageResult(["rows"], len(rows))


def draw(context: StageContext) -> StageResult:
    """Stage: the rows that a prompt is asked about.

    Settings: `draw`, a `Draw` as a dictionary; `prompt`.
    Inputs: `inputs`, input rows.
    """
    dealt, prompt = Draw(**context.settings["draw"]), context.settings["prompt"]
    made = ShardWriter(context, INPUT, named="")
    nothing = rejected_table(context.stage.stage, [])
    for table in context.inputs["inputs"].iter_shards():
        rows = [row for row in table.to_pylist() if prompt in dealt.asked_by(row["id"])]
        made.write(rows, nothing)
    return made.result()
