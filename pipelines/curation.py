"""Which rows are worth asking a teacher about: checked before anything is paid for it.

The inputs are read twice, a shard at a time. The first reading checks each row by itself and spills
what the checks between rows need; after those, the second writes rows and rejections. A row is held
only against rows that passed the checks by themselves, so nothing is lost to a row that is dropped
for being too long. In memory a row takes some 40 bytes, whatever its length.
"""

from __future__ import annotations

import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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

HELD_AGAINST = ("examples", "evaluation")
"""Inputs that rows are held against; every other input is rows to be judged."""

KEPT, DUPLICATE, NEAR_DUPLICATE, UNBALANCED, UNFIT = range(5)
"""What becomes of a row; an unfit one failed the checks of a row by itself."""


@dataclass(frozen=True)
class TextChecks:
    """The checks of a text by itself."""

    min_words: int
    max_words: int | None
    evaluation: EvaluationNgrams | None = None
    language: LanguageFilter | None = None

    def fault_of_length(self, text: str) -> tuple[str, str] | None:
        """Reason and detail of a text that is empty, too short or too long."""
        words = len(text.split())
        if not normal_form(text):
            return "empty", "there are no letters or digits in it"
        if words < self.min_words:
            return "too-short", f"{words} words, at least {self.min_words} wanted"
        if self.max_words is not None and words > self.max_words:
            return "too-long", f"{words} words, at most {self.max_words} wanted"
        return None

    def fault_of_content(self, text: str) -> tuple[str, str] | None:
        """Reason and detail of a text that copies, or is in a language that is not wanted."""
        for evaluation_row, shared in self.contaminated_by(text).items():
            return "contaminated", f"evaluation row {evaluation_row} has the words '{shared}' too"
        found = self.language.unwanted(text) if self.language else None
        if found is None:
            return None
        likeliest, probability = found
        return "language", f"likeliest {likeliest}; wanted ones have probability {probability:.3f}"

    def contaminated_by(self, text: str) -> dict[str, str]:
        """Evaluation rows that a text shares an n-gram with, each with the first words shared."""
        return self.evaluation.shared(text) if self.evaluation is not None else {}


class Subject(Protocol):
    """What is curated: how the rows of one kind of dataset are judged."""

    schema: pa.Schema
    noun: str
    """What a row is called."""
    columns: list[str]
    """Those that the first reading needs; `id` is one."""

    @property
    def checks(self) -> TextChecks:
        """Those of the text."""
        ...

    def text(self, row: Row) -> str:
        """What is compared between rows, of a row without a fault."""
        ...

    def fault(self, row: Row) -> Rejection | None:
        """Why a row is of no use by itself; None where it may be used."""
        ...


@dataclass(frozen=True)
class GeneratedItems:
    """Items that a teacher wrote, judged by their question and their choices."""

    checks: TextChecks

    schema = GENERATED
    noun = "item"
    columns = ["id", "question", "choices", "intended"]

    def text(self, row: Row) -> str:
        """The question."""
        question: str = row["question"]
        return question

    def fault(self, row: Row) -> Rejection | None:
        """Why an item is of no use by itself; None where it may be used."""
        fault = (
            self.checks.fault_of_length(row["question"])
            or choice_fault(row["choices"], row["intended"])
            or self.checks.fault_of_content(row["question"])
        )
        return Rejection(*fault, row) if fault else None


def curate(context: StageContext) -> StageResult:
    """Stage: keep the items that are worth scoring.

    Settings: those of `core.recipe_curation.Curate`, and `seed`.
    Inputs: `examples`, task rows; `evaluation`, task rows, where `contamination_ngram` is set;
    every other input is generated rows.
    """
    settings = context.settings
    evaluation = None
    if settings["contamination_ngram"] is not None:
        rows = context.inputs["evaluation"].read(["id", "question"]).to_pylist()
        evaluation = EvaluationNgrams(
            ((row["id"], row["question"]) for row in rows), settings["contamination_ngram"]
        )
    examples = context.inputs["examples"].read(["question"])["question"].to_pylist()
    return curate_rows(
        context,
        GeneratedItems(text_checks(settings, evaluation)),
        examples,
        Balance(settings["max_class_ratio"], settings["seed"]),
    )


def text_checks(settings: dict[str, Any], evaluation: EvaluationNgrams | None) -> TextChecks:
    """The checks that a stage's settings ask for, against the evaluation rows that it has read."""
    language = LanguageFilter(**settings["languages"]) if settings["languages"] else None
    return TextChecks(settings["min_words"], settings["max_words"], evaluation, language)


@dataclass(frozen=True)
class Balance:
    """How far the classes of rows may differ in number."""

    max_class_ratio: float | None = None
    """Rows of a class, for every row of the rarest, at most; None does without."""
    seed: int = 0
    """Decides which rows go."""


def curate_rows(
    context: StageContext,
    subject: Subject,
    examples: Sequence[str] = (),
    balance: Balance = Balance(),
) -> StageResult:
    """Judge the rows of a stage's inputs, and commit those that are kept and those that are not.

    Args:
        context: Of the stage; `near_duplicates` stands in its settings.
        subject: How a row is judged.
        examples: Texts that stand before all rows: a copy of one is dropped.
        balance: By the rows' `intended`.
    """
    # On this machine's disk, and under one name: a killed attempt's files are found and deleted.
    spill = context.logs / f"{context.stage.stage}.spill"
    shutil.rmtree(spill, ignore_errors=True)
    spill.mkdir()
    try:
        passed = _Passed(spill, subject, context.settings["near_duplicates"], balance)
        passed.add_examples(examples)
        return _curate(context, subject, passed)
    finally:
        shutil.rmtree(spill)


def _curate(context: StageContext, subject: Subject, passed: _Passed) -> StageResult:
    fit = bytearray()
    for table in _read(context, 0, subject.columns):
        rows = table.to_pylist()
        fit_here = [subject.fault(row) is None for row in rows]
        fit.extend(fit_here)
        passed.add([row for row, is_fit in zip(rows, fit_here, strict=True) if is_fit])
    fates, others = passed.fates()

    output = _Output(context, subject)
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
        rejections: list[tuple[Row, Rejection]] = []
        for place, row in zip(dropped, table.take(dropped).to_pylist(), strict=True):
            fate = here[place]
            if fate == UNFIT:
                rejection = subject.fault(row)
                assert rejection is not None, "the first reading found its fault"
            elif fate == UNBALANCED:
                choice = row["choices"][row["intended"]]
                ratio = passed.balance.max_class_ratio
                detail = f"{choice} has more than {ratio:g} times the rows of the rarest choice"
                rejection = Rejection("unbalanced", detail, row)
            elif fate == DUPLICATE:
                rejection = Rejection("duplicate", f"the same as {passed.name(other[place])}", row)
            else:
                detail = f"nearly the same as {passed.name(other[place])}"
                rejection = Rejection("near-duplicate", detail, row)
            rejections.append((row, rejection))
        output.add(table.filter(pa.array(here == KEPT)), rejections)
    return output.result()


def _read(
    context: StageContext, reading: int, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of all inputs, a shard at a time; shows how far both readings are."""
    inputs = [stage for role, stage in context.inputs.items() if role not in HELD_AGAINST]
    total = sum(manifest.rows for stage in inputs if (manifest := stage.manifest()))
    done = reading * total
    for stage in inputs:
        for table in stage.iter_shards(columns):
            yield table
            done += table.num_rows
            context.show(Progress(done, 2 * total, unit="rows read"))


class _Passed:
    """The examples, and after them the rows that passed by themselves, numbered in input order.

    All but the labels is on disk, at `ID_LENGTH` bytes for an id and 8 for a key.
    """

    def __init__(
        self, folder: Path, subject: Subject, near: dict[str, Any] | None, balance: Balance
    ) -> None:
        self.balance = balance
        self.examples = 0
        self._subject = subject
        self._near = NearDuplicates(folder / "near", near["threshold"]) if near else None
        self._ids, self._keys, self._turns = folder / "ids", folder / "keys", folder / "turns"
        for file in (self._ids, self._keys, self._turns):
            file.touch()
        self._labels = array("h")

    def add_examples(self, texts: Sequence[str]) -> None:
        """Take in what the teacher was shown, before any other row: a copy of it teaches nothing.

        So an example is always the first of what is like it.
        """
        self.examples += len(texts)
        self._add([""] * len(texts), texts, [-1] * len(texts))

    def add(self, rows: Sequence[Row]) -> None:
        """Take in the next rows."""
        texts = [self._subject.text(row) for row in rows]
        self._add([row["id"] for row in rows], texts, (row["intended"] for row in rows))

    def _add(self, ids: Sequence[str], texts: Sequence[str], labels: Iterable[int]) -> None:
        _append(self._ids, np.array(ids, dtype=f"S{ID_LENGTH}"))
        _append(self._keys, np.array([text_key(text) for text in texts], dtype=np.uint64))
        if self._near:
            self._near.add(texts)
        if self.balance.max_class_ratio is not None:
            self._labels.extend(labels)
            turns = [balance_key(row_id, self.balance.seed) for row_id in ids]
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
        if self.balance.max_class_ratio is not None:
            kept = np.flatnonzero(fates[self.examples :] == KEPT) + self.examples
            labels = np.frombuffer(self._labels, dtype=np.int16)[kept]
            turns = np.fromfile(self._turns, dtype=np.uint64)[kept]
            fates[kept[surplus(labels, turns, self.balance.max_class_ratio)]] = UNBALANCED
        return fates, others

    def name(self, number: int) -> str:
        """How a person finds a row."""
        if number < self.examples:
            return "an example"
        with self._ids.open("rb") as stream:
            stream.seek(int(number) * ID_LENGTH)
            row_id = stream.read(ID_LENGTH).rstrip(bytes(1)).decode()
        return f"{self._subject.noun} {row_id}"


def _append(file: Path, values: np.ndarray) -> None:
    with file.open("ab") as stream:
        values.tofile(stream)


@dataclass
class _Output:
    """Writes shards of bounded size, and counts."""

    context: StageContext
    subject: Subject
    tables: list[pa.Table] = field(default_factory=list)
    rejections: list[tuple[str, Rejection]] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    kept: int = 0
    kept_by_mode: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_by_mode: dict[str, Counter[str]] = field(default_factory=dict)
    contamination: Counter[str] = field(default_factory=Counter)
    """Rows rejected for what they share with an evaluation row, by its id."""

    def add(self, kept: pa.Table, rejections: list[tuple[Row, Rejection]]) -> None:
        """Take in what became of some rows."""
        self.tables.append(kept)
        self.kept += kept.num_rows
        self.rejections += [(row["id"], rejection) for row, rejection in rejections]
        for row, rejection in rejections:
            self.rejected[rejection.reason] += 1
            if rejection.reason == "contaminated":
                text = self.subject.text(row)
                self.contamination.update(self.subject.checks.contaminated_by(text).keys())
        if self._has_modes:
            self.kept_by_mode.update(kept["mode"].to_pylist())
            for row, rejection in rejections:
                self.rejected_by_mode.setdefault(row["mode"], Counter())[rejection.reason] += 1
        if sum(table.num_rows for table in self.tables) + len(self.rejections) >= SHARD_ROWS:
            self._commit()

    def result(self) -> StageResult:
        """Commit what is left, and sum up."""
        if self.tables or not self.shards:
            self._commit()
        facts: dict[str, Any] = {}
        if self._has_modes:
            facts["rejected_by_mode"] = {m: dict(c) for m, c in self.rejected_by_mode.items()}
            facts["kept_by_mode"] = dict(self.kept_by_mode)
        if "evaluation" in self.context.inputs:
            facts["contamination"] = dict(self.contamination.most_common())
        return StageResult(self.shards, self.kept, dict(self.rejected.most_common()), facts)

    @property
    def _has_modes(self) -> bool:
        return "mode" in self.subject.schema.names

    def _commit(self) -> None:
        key = f"rows-{len(self.shards):06d}"
        rows = pa.concat_tables([self.subject.schema.empty_table(), *self.tables])
        rejected = rejected_table(self.context.stage.stage, self.rejections)
        self.context.stage.commit_shard(key, rows, rejected)
        self.shards.append(key)
        self.tables, self.rejections = [], []
