"""A sample of a plan's rows, asked inside its run, and what a run's rows and ledger foretell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.ledger import Entry, Ledger, total
from core.prices import PriceBook, recipe_prices
from core.recipe_teachers import RecordedTeacher
from core.run import StageFolder, id_numbers
from core.stage import SAMPLE
from stillhouse.estimate import (
    Amount,
    Answered,
    Estimate,
    line,
    start_up,
    survivors,
    together,
)
from stillhouse.stages import Stage, fingerprints
from stillhouse.workflow import Plan

LEAST = 2
"""Rows of a sample at least: one has no spread."""


def sample_plan(plan: Plan, rows: int) -> Plan:
    """The stages that ask teachers, about so many rows each, and what those stages need.

    Stages that begin from nothing, such as two ways of writing, are sampled in proportion to their
    rows: what is made of both is then the mixture that the run has. The largest gets `rows`.

    A sample is work of the run itself: an asking stage keeps its folder, and the run finds the
    sample's rows there by their ids. A stage that reads a sample as a whole, such as `clean`, gets
    a folder of its own, and one that reads none is done for the run too.
    """
    asking = [stage for stage in plan.stages if stage.asks]
    needed = {stage.name for one in asking for stage in plan.until(one.name)}
    begin = [max(stage.asks.values()) for stage in asking if not stage.growing]
    share = rows / max(begin, default=rows)
    stages = [
        _sampled(stage, rows, share) if stage.asks and not plan.done(stage.name) else stage
        for stage in plan.stages
        if stage.name in needed
    ]
    made = fingerprints(stages, plan.loaded, plan.run)
    return replace(plan, stages=stages, fingerprints=made, sample_of=plan)


def _sampled(stage: Stage, rows: int, share: float) -> Stage:
    if not stage.growing:
        rows = max(LEAST, round(share * max(stage.asks.values())))
    return replace(stage, extent={**stage.extent, SAMPLE: rows})


def estimate(plan: Plan, sample: Plan | None = None) -> Estimate:
    """Reckon up the asking stages of a plan from what is committed in its run; asks nothing.

    Args:
        plan: Of all rows.
        sample: The plan of a sample that has been run. Without, stages whose number of rows is
            not known before others are done are left out.
    """
    reader = _Reader(plan, sample)
    prices = recipe_prices(plan.loaded)
    lines, unknown = [], []
    for stage in plan.stages:
        for teacher, rows in reader.rows_asked(stage).items():
            if isinstance(plan.loaded.recipe.teachers[teacher], RecordedTeacher):
                continue  # it costs nothing
            answered = reader.answered(stage)[teacher]
            if rows is None or not len(answered.kept):
                unknown.append(f"{stage.name} by {teacher}")
            else:
                lines.append(line(stage.name, teacher, rows, answered, prices))
    needed = {line.teacher for line in lines if line.rows.left.value}
    starts = [start_up(teacher, reader.entries, prices) for teacher in sorted(needed)]
    return Estimate(lines, [start for start in starts if start is not None], unknown)


@dataclass
class _Reader:
    """What is committed in a run."""

    plan: Plan
    sample: Plan | None

    def __post_init__(self) -> None:
        self.entries = Ledger(self.plan.run.ledger).entries()
        self._stages = {stage.name: stage for stage in self.plan.stages}
        self._answered: dict[str, dict[str, Answered]] = {}

    def answered(self, stage: Stage) -> dict[str, Answered]:
        """What a stage's teachers have answered, in this and all earlier attempts."""
        if stage.name not in self._answered:
            work = self.plan.fingerprints[stage.name].work
            entries = [e for e in self.entries if e.stage == stage.name and e.work == work]
            folder = self.plan.folder(stage.name)
            self._answered[stage.name] = read_answered(folder, list(stage.asks), entries)
        return self._answered[stage.name]

    def rows_asked(self, stage: Stage) -> dict[str, Amount | None]:
        """By teacher: the rows of an asking stage; None where nobody knows yet."""
        rows: Amount | None = Amount(1)
        if stage.growing:
            grown = [self.rows_made(name) for name in stage.growing.values()]
            known = [amount for amount in grown if amount is not None]
            rows = together(known) if len(known) == len(grown) else None
        return {
            name: None if rows is None else rows.times(number)
            for name, number in stage.asks.items()
        }

    def rows_made(self, name: str) -> Amount | None:
        """Different rows that a stage makes of all that it reads; None where nobody knows yet."""
        stage = self._stages[name]
        if self.plan.done(name):
            return Amount(len(_made(self.plan.folder(name))))
        parts = self._kept_by_teachers(stage) if stage.asks else self._passed_on(stage)
        known = [part for part in parts if part is not None]
        return together(known) if len(known) == len(parts) else None

    def _kept_by_teachers(self, stage: Stage) -> list[Amount | None]:
        answered = self.answered(stage)
        return [
            survivors(rows, len(answered[name].kept), answered[name].rows)
            if rows is not None and answered[name].rows
            else None
            for name, rows in self.rows_asked(stage).items()
        ]

    def _passed_on(self, stage: Stage) -> list[Amount | None]:
        """Rows of each input that a filter lets through; they keep their ids.

        More rows have more duplicates among them than a sample of them has, so these are somewhat
        too many.
        """
        if self.sample is None or not self.sample.done(stage.name):
            return [None]
        passed = _made(self.sample.folder(stage.name))
        parts: list[Amount | None] = []
        for name in {**stage.inputs, **stage.growing}.values():
            rows = self.rows_made(name)
            read = _made(self.sample.folder(name))
            kept = len(np.intersect1d(read, passed))
            parts.append(None if rows is None else survivors(rows, kept, len(read)))
        return parts


def read_answered(
    folder: StageFolder, teachers: list[str], entries: list[Entry]
) -> dict[str, Answered]:
    """What teachers have answered of a stage, by all shards that are there; each is one teacher's.

    Args:
        folder: Of the stage.
        teachers: Those that it asks.
        entries: The ledger's, of this work.
    """
    ids: dict[str, list[np.ndarray]] = {teacher: [] for teacher in teachers}
    usage: dict[str, list[np.ndarray]] = {teacher: [] for teacher in teachers}
    rejected: dict[str, list[np.ndarray]] = {teacher: [] for teacher in teachers}
    with_rejected = set(folder.rejected.names())
    for file in folder.rows.names():
        table = folder.rows.read_table(file, ["id", "teacher", "usage"])
        if table.num_rows:
            teacher = table["teacher"][0].as_py()
            ids[teacher].append(id_numbers(table))
            usage[teacher].append(_usage(table))
        if file in with_rejected:
            refused = folder.rejected.read_table(file, ["id", "teacher"])
            rejected[refused["teacher"][0].as_py()].append(id_numbers(refused))
    found = {}
    for teacher in teachers:
        # A row of a sample stands in its own shard and, later, in the run's.
        _, first = np.unique(_joined(ids[teacher]), return_index=True)
        found[teacher] = Answered(
            kept=np.concatenate([np.empty((0, 4), np.int64), *usage[teacher]])[first],
            rejected=len(np.unique(_joined(rejected[teacher]))),
            used=_used(entry for entry in entries if entry.teacher == teacher),
        )
    return found


def _used(entries: Iterable[Entry]) -> Entry:
    """Entries of one teacher and one stage as one."""
    listed = list(entries)
    found = total(listed, PriceBook(currency="USD")).entry  # of which no money is asked
    return replace(found, device=listed[0].device, model=listed[0].model) if listed else found


def _made(folder: StageFolder) -> np.ndarray:
    """The different rows of a finished stage."""
    manifest = folder.manifest()
    assert manifest is not None, "it is finished"
    return folder.different_rows(manifest.shards)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *arrays])


def _usage(table: pa.Table) -> np.ndarray:
    """int64 [rows, 4]; zero where nobody has counted, as of recorded answers."""
    columns = table["usage"].combine_chunks().flatten()
    counted = [pc.fill_null(column, 0).to_numpy() for column in columns]
    return np.stack(counted, axis=1).astype(np.int64)
