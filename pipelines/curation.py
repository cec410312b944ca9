"""Which of the generated rows are worth scoring: checked before anything is paid for it.

The inputs are read twice, a shard at a time. The first reading checks each row by itself and spills
what the checks between rows need; after those, the second writes rows and rejections. A row is held
only against rows that passed the checks by themselves, so nothing is lost to a row that is dropped
for being too long. In memory a row takes some 40 bytes, whatever its length.
"""

from __future__ import annotations

import shutil
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.identity import ID_LENGTH
from core.rows import GENERATED
from core.stage import Progress, StageContext, StageResult
from pipelines.balance import balance_key, surplus
from pipelines.choice_sets import choice_fault
from pipelines.contamination import EvaluationNgrams
from pipelines.duplicates import first_of_equal, normal_form, text_key
from pipelines.language import LanguageFilter
from pipelines.near_duplicates import NearDuplicates
from pipelines.row_work import Rejection, Row, rejected_table

SHARD_ROWS = 10_000
"""Rows, kept or rejected, from which an output shard is committed."""

NOT_GENERATED = ("examples", "evaluation")
"""Inputs that generated rows are held against; every other input is generated rows."""

KEPT, DUPLICATE, NEAR_DUPLICATE, UNBALANCED, UNFIT = range(5)
"""What becomes of a row; an unfit one failed the checks of a row by itself."""


def curate(context: StageContext) -> StageResult:
    """Stage: keep the items that are worth scoring.

    Settings: those of `core.recipe.Curate`, and `seed`.
    Inputs: `examples`, task rows; `evaluation`, task rows, where `contamination_ngram` is set;
    every other input is generated rows.
    """
    # On this machine's disk, and under one name: a killed attempt's files are found and deleted.
    spill = context.logs / f"{context.stage.stage}.spill"
    shutil.rmtree(spill, ignore_errors=True)
    spill.mkdir()
    try:
        return _curate(context, spill)
    finally:
        shutil.rmtree(spill)


def _curate(context: StageContext, spill: Path) -> StageResult:
    checks = row_checks(context)
    passed = _Passed(spill, context.settings)
    for table in context.inputs["examples"].iter_shards(["id", "question"]):
        passed.add_examples(table.to_pylist())
    fit = bytearray()
    for table in _read(context, 0, ["id", "question", "choices", "intended"]):
        rows = table.to_pylist()
        fit_here = [checks.fault(row) is None for row in rows]
        fit.extend(fit_here)
        passed.add([row for row, is_fit in zip(rows, fit_here, strict=True) if is_fit])
    fates, others = passed.fates()

    output = _Output(context)
    begin, begin_passed = 0, passed.examples
    for table in _read(context, 1):
        is_fit = np.frombuffer(fit, dtype=bool, count=table.num_rows, offset=begin)
        end_passed = begin_passed + int(is_fit.sum())
        here = np.full(table.num_rows, UNFIT, dtype=np.uint8)
        here[is_fit] = fates[begin_passed:end_passed]
        other = np.zeros(table.num_rows, dtype=np.int32)
        other[is_fit] = others[begin_passed:end_passed]
        begin, begin_passed = begin + table.num_rows, end_passed

        dropped = np.flatnonzero(here != KEPT)
        rejections: list[tuple[str, Rejection]] = []
        for place, row in zip(dropped, table.take(dropped).to_pylist(), strict=True):
            fate = here[place]
            if fate == UNFIT:
                rejection = checks.fault(row)
                assert rejection is not None, "the first reading found its fault"
                output.note_contamination(checks, row, rejection)
            elif fate == UNBALANCED:
                choice = row["choices"][row["intended"]]
                ratio = context.settings["max_class_ratio"]
                detail = f"{choice} has more than {ratio:g} times the rows of the rarest choice"
                rejection = Rejection("unbalanced", detail, row)
            elif fate == DUPLICATE:
                rejection = Rejection("duplicate", f"the same as {passed.name(other[place])}", row)
            else:
                detail = f"nearly the same as {passed.name(other[place])}"
                rejection = Rejection("near-duplicate", detail, row)
            rejections.append((row["id"], rejection))
        output.add(table.filter(pa.array(here == KEPT)), rejections)
    return output.result()


def _read(
    context: StageContext, reading: int, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """The generated rows of all inputs, a shard at a time; shows how far both readings are."""
    inputs = [stage for role, stage in context.inputs.items() if role not in NOT_GENERATED]
    total = sum(manifest.rows for stage in inputs if (manifest := stage.manifest()))
    done = reading * total
    for stage in inputs:
        for table in stage.iter_shards(columns):
            yield table
            done += table.num_rows
            context.show(Progress(done, 2 * total, unit="rows read"))


@dataclass(frozen=True)
class RowChecks:
    """The checks that need no other generated row."""

    min_words: int
    max_words: int
    evaluation: EvaluationNgrams | None = None
    language: LanguageFilter | None = None

    def fault(self, row: Row) -> Rejection | None:
        """Why a row is of no use by itself; None where it may be used."""
        fault = (
            self._fault_of_length(row["question"])
            or choice_fault(row["choices"], row["intended"])
            or self._fault_of_content(row)
        )
        return Rejection(*fault, row) if fault else None

    def _fault_of_length(self, question: str) -> tuple[str, str] | None:
        words = len(question.split())
        if not normal_form(question):
            return "empty", "there are no letters or digits in it"
        if words < self.min_words:
            return "too-short", f"{words} words, at least {self.min_words} wanted"
        if words > self.max_words:
            return "too-long", f"{words} words, at most {self.max_words} wanted"
        return None

    def _fault_of_content(self, row: Row) -> tuple[str, str] | None:
        for evaluation_row, shared in self.contaminated_by(row).items():
            return "contaminated", f"evaluation row {evaluation_row} has the words '{shared}' too"
        found = self.language.unwanted(row["question"]) if self.language else None
        if found is None:
            return None
        likeliest, probability = found
        return "language", f"likeliest {likeliest}; wanted ones have probability {probability:.3f}"

    def contaminated_by(self, row: Row) -> dict[str, str]:
        """Evaluation rows that a row shares an n-gram with, each with the first words shared."""
        return self.evaluation.shared(row["question"]) if self.evaluation is not None else {}


def row_checks(context: StageContext) -> RowChecks:
    """The checks that a stage's settings ask for."""
    settings = context.settings
    evaluation = language = None
    if settings["contamination_ngram"] is not None:
        rows = context.inputs["evaluation"].read(["id", "question"]).to_pylist()
        evaluation = EvaluationNgrams(
            ((row["id"], row["question"]) for row in rows), settings["contamination_ngram"]
        )
    if settings["languages"] is not None:
        language = LanguageFilter(**settings["languages"])
    return RowChecks(settings["min_words"], settings["max_words"], evaluation, language)


class _Passed:
    """The examples, and after them the rows that passed by themselves, numbered in input order.

    All but the labels is on disk, at `ID_LENGTH` bytes for an id and 8 for a key.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        near = settings["near_duplicates"]
        self._near = NearDuplicates(folder / "near", near["threshold"]) if near else None
        self._max_ratio, self._seed = settings["max_class_ratio"], settings["seed"]
        self._ids, self._keys, self._turns = folder / "ids", folder / "keys", folder / "turns"
        for file in (self._ids, self._keys, self._turns):
            file.touch()
        self._labels = array("h")
        self.examples = 0

    def add_examples(self, rows: Sequence[Row]) -> None:
        """Take in what the teacher was shown, before any other row: a copy of it teaches nothing.

        So an example is always the first of what is like it.
        """
        self.examples += len(rows)
        self.add([{**row, "intended": -1} for row in rows])

    def add(self, rows: Sequence[Row]) -> None:
        """Take in the next rows."""
        texts = [row["question"] for row in rows]
        ids = [row["id"] for row in rows]
        _append(self._ids, np.array(ids, dtype=f"S{ID_LENGTH}"))
        _append(self._keys, np.array([text_key(text) for text in texts], dtype=np.uint64))
        if self._near:
            self._near.add(texts)
        if self._max_ratio is not None:
            self._labels.extend(row["intended"] for row in rows)
            turns = [balance_key(row_id, self._seed) for row_id in ids]
            _append(self._turns, np.array(turns, dtype=np.uint64))

    def fates(self) -> tuple[np.ndarray, np.ndarray]:
        """What becomes of each row.

        Returns:
            fates: uint8 [rows].
            others: int32 [rows], the number of the row that a duplicate repeats.
        """
        others = first_of_equal(np.fromfile(self._keys, dtype=np.uint64))
        numbers = np.arange(len(others), dtype=np.int32)
        fates = np.where(others != numbers, DUPLICATE, KEPT).astype(np.uint8)
        if self._near:
            near = self._near.firsts()
            found = (near != numbers) & (fates == KEPT)
            fates[found], others[found] = NEAR_DUPLICATE, near[found]
        if self._max_ratio is not None:
            kept = np.flatnonzero(fates[self.examples :] == KEPT) + self.examples
            labels = np.frombuffer(self._labels, dtype=np.int16)[kept]
            turns = np.fromfile(self._turns, dtype=np.uint64)[kept]
            fates[kept[surplus(labels, turns, self._max_ratio)]] = UNBALANCED
        return fates, others

    def name(self, number: int) -> str:
        """How a person finds a row."""
        if number < self.examples:
            return "an example"
        with self._ids.open("rb") as stream:
            stream.seek(int(number) * ID_LENGTH)
            return f"item {stream.read(ID_LENGTH).rstrip(bytes(1)).decode()}"


def _append(file: Path, values: np.ndarray) -> None:
    with file.open("ab") as stream:
        values.tofile(stream)


@dataclass
class _Output:
    """Writes shards of bounded size, and counts."""

    context: StageContext
    tables: list[pa.Table] = field(default_factory=list)
    rejections: list[tuple[str, Rejection]] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    kept_by_mode: Counter[str] = field(default_factory=Counter)
    rejected_by_mode: dict[str, Counter[str]] = field(default_factory=dict)
    contamination: Counter[str] = field(default_factory=Counter)
    """Rows rejected for what they share with an evaluation row, by its id."""

    def note_contamination(self, checks: RowChecks, row: Row, rejection: Rejection) -> None:
        """Count the evaluation rows that a rejected row touches."""
        if rejection.reason == "contaminated":
            self.contamination.update(checks.contaminated_by(row).keys())

    def add(self, kept: pa.Table, rejections: list[tuple[str, Rejection]]) -> None:
        """Take in what became of some rows."""
        self.tables.append(kept)
        self.rejections += rejections
        self.kept_by_mode.update(kept["mode"].to_pylist())
        for _, rejection in rejections:
            reasons = self.rejected_by_mode.setdefault(rejection.original["mode"], Counter())
            reasons[rejection.reason] += 1
        if sum(table.num_rows for table in self.tables) + len(self.rejections) >= SHARD_ROWS:
            self._commit()

    def result(self) -> StageResult:
        """Commit what is left, and sum up."""
        if self.tables or not self.shards:
            self._commit()
        facts: dict[str, Any] = {
            "rejected_by_mode": {mode: dict(c) for mode, c in self.rejected_by_mode.items()},
            "kept_by_mode": dict(self.kept_by_mode),
        }
        if "evaluation" in self.context.inputs:
            facts["contamination"] = dict(self.contamination.most_common())
        by_reason = sum(self.rejected_by_mode.values(), Counter[str]())
        return StageResult(
            self.shards, self.kept_by_mode.total(), dict(by_reason.most_common()), facts
        )

    def _commit(self) -> None:
        key = f"rows-{len(self.shards):06d}"
        rows = pa.concat_tables([GENERATED.empty_table(), *self.tables])
        rejected = rejected_table(self.context.stage.stage, self.rejections)
        self.context.stage.commit_shard(key, rows, rejected)
        self.shards.append(key)
        self.tables, self.rejections = [], []
