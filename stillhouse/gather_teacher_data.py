"""Reads a run of teacher data, finished or not, into its report.

The answers are read a file at a time and counted; only those to some rows are kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.ledger import total
from core.recipe import TrainingRecipe
from core.recipe_teachers import AnyTeacher, EndpointTeacher, Teacher
from core.run import Run, StageFolder
from pipelines.plan import read_plan
from pipelines.prompt_files import compile_prompt
from stillhouse.asking import Ask, AskingRecipe
from stillhouse.gather_ablation import ablations_of
from stillhouse.gather_students import compared_students, judged, training_rows, trainings
from stillhouse.gather_sweep import sweep_of
from stillhouse.report.data import Histogram, Price, RejectedRow, Samples
from stillhouse.report.teacher_data import (
    AnswerText,
    Asked,
    AskedRow,
    InputStep,
    Lengths,
    Logits,
    TeacherDataReport,
    TeacherWork,
)
from stillhouse.report.wording import money
from stillhouse.run_reader import (
    Row,
    RunReader,
    device_prices,
    model_name,
    provenance,
    sample_step,
)

EXAMPLES = 20
"""Rejected rows of one stage, teacher and reason that the report's data holds."""

MOST_CHARACTERS = 5_000_000
"""Of the input rows that the report's data holds, together."""

BEFORE = ("pipelines.inputs:read_inputs", "pipelines.input_curation:curate_inputs")
"""What rows pass before anybody is asked about them."""

COUNTED = ["teacher", "item", "finish", "usage"]
"""Columns of the answers that are read of all of them."""

BARS = 20
"""Of a histogram of lengths, at most."""

TOKEN_BYTES, ALTERNATIVE_BYTES = 4, 6
"""Of `token_ids`, and of `top_ids` and `top_logprobs` together, as `core.rows` has them."""


def gather_teacher_data(run: Run) -> TeacherDataReport:
    """Read a run into its report."""
    reader = RunReader(run)
    recipe = reader.loaded.recipe
    assert isinstance(recipe, AskingRecipe)
    asked = recipe.ask if any(stage.name == "ask" for stage in reader.layout) else {}
    shown = _some_inputs(reader) if asked else {}
    found = {name: _Found(set(shown), ask.sampling.top_logprobs > 0) for name, ask in asked.items()}
    rejected = _Rejected(found)
    for name, stage in reader.finished.items():
        if name != "ask":
            rejected.read(name, stage, reader.manifest(name).shards)
    planned: dict[str, int] = {}
    if asked:
        keys, planned = _shards(reader, list(asked))
        folder = _folder(reader, "ask")
        for key in keys:
            table = folder.rows.read_table(f"{key}.parquet", COUNTED)
            if table.num_rows:  # a shard is of one teacher
                found[table["teacher"][0].as_py()].read(folder, f"{key}.parquet", table)
        rejected.read("ask", folder, keys)
    summed = total(reader.entries, reader.prices)
    steps = [
        (InputStep(stage.name, manifest.rows, manifest.rejected), stage.run)
        for stage in reader.layout
        if stage.name in reader.finished and stage.name != "ask"
        for manifest in [reader.manifest(stage.name)]
    ]
    return TeacherDataReport(
        name=recipe.name,
        method=recipe.method,
        warnings=_warnings(reader, summed.money),
        currency=reader.prices.currency,
        prices=_prices(reader),
        steps=[step for step, run in steps if run in BEFORE],
        teachers=[_teacher(reader, name, planned.get(name), found[name]) for name in asked],
        total=summed.entry,
        money=summed.money,
        rejected=Samples(rejected.total, rejected.examples),
        rows=Samples(
            _rows_asked_about(reader) if asked else 0,
            [_asked_row(asked, item, fields, found) for item, fields in shown.items()],
        ),
        provenance=provenance(reader, _students(reader)),
        later=[step for step, run in steps if run not in BEFORE],
        training_rows=training_rows(reader),
        trainings=trainings(reader),
        judged=judged(reader),
        sweep=sweep_of(reader),
        compared=compared_students(reader),
        ablations=ablations_of(reader),
    )


def _students(reader: RunReader) -> dict[str, str]:
    """The models that students start from, by the students' names."""
    recipe = reader.loaded.recipe
    students = recipe.students if isinstance(recipe, TrainingRecipe) else {}
    return {name: student.model for name, student in students.items()}


def _folder(reader: RunReader, stage: str) -> StageFolder:
    state = reader.run.state()
    assert state is not None, "the run exists"
    return reader.run.stage(stage, state["stages"][stage])


def _shards(reader: RunReader, teachers: list[str]) -> tuple[list[str], dict[str, int]]:
    """The committed shards of answers; while not all are, also the questions to each teacher."""
    if "ask" in reader.finished:
        return reader.manifest("ask").shards, {}
    state, folder = reader.run.state(), _folder(reader, "ask")
    assert state is not None, "the run exists"
    plans = {
        teacher: read_plan(folder.plan, f"{teacher}.{state['fingerprints']['ask'][:12]}")
        for teacher in teachers
    }
    there = folder.committed_shards()
    shards = {teacher: plan for teacher, plan in plans.items() if plan is not None}
    return (
        [shard.key for plan in shards.values() for shard in plan if shard.key in there],
        {teacher: sum(shard.rows for shard in plan) for teacher, plan in shards.items()},
    )


def _asked_about(reader: RunReader) -> str:
    """The stage whose rows teachers are asked about."""
    return next(stage for stage in reader.layout if stage.name == "ask").growing["inputs"]


def _rows_asked_about(reader: RunReader) -> int:
    stage = _asked_about(reader)
    return reader.manifest(stage).rows if stage in reader.finished else 0


def _some_inputs(reader: RunReader) -> dict[str, dict[str, Any]]:
    """The fields of some rows that teachers are asked about, by id, spread evenly over all."""
    stage = _asked_about(reader)
    if stage not in reader.finished:
        return {}
    step, place, characters = sample_step(reader.manifest(stage).rows), 0, 0
    found: dict[str, dict[str, Any]] = {}
    for table in reader.finished[stage].iter_shards(["id", "fields"]):
        places = np.arange(-place % step, table.num_rows, step)
        place += table.num_rows
        for row in table.take(places).to_pylist():
            characters += len(row["fields"])
            if found and characters > MOST_CHARACTERS:
                return found
            found[row["id"]] = json.loads(row["fields"])
    return found


@dataclass
class _Found:
    """What was found of one teacher's answers."""

    shown: set[str]
    """Ids of the rows that are shown."""
    logits: bool
    """Whether the likeliest tokens are kept."""
    answered: int = 0
    finishes: Counter[str] = field(default_factory=Counter)
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    """Answers of so many tokens."""
    tokens: int = 0
    alternatives: int = 0
    stored_bytes: int = 0
    answers: dict[str, list[AnswerText]] = field(default_factory=dict)
    """By the id of the row."""
    rejections: dict[str, list[str]] = field(default_factory=dict)
    """By the same, of the rows that are shown."""
    rejected: Counter[str] = field(default_factory=Counter)

    def read(self, folder: StageFolder, name: str, table: pa.Table) -> None:
        """Take in a shard: its file's name, and the `COUNTED` columns."""
        self.answered += table.num_rows
        for pair in pc.value_counts(table["finish"]).to_pylist():
            self.finishes[pair["values"]] += pair["counts"]
        # Of recorded answers nobody may have counted them.
        tokens = pc.drop_null(pc.struct_field(table["usage"], "tokens_out")).to_numpy()
        counts = np.bincount(tokens, minlength=len(self.lengths))
        counts[: len(self.lengths)] += self.lengths
        self.lengths = counts
        if self.logits:
            self._measure(folder, name)
        wanted = pc.is_in(table["item"], value_set=pa.array(sorted(self.shown), pa.string()))
        if pc.any(wanted).as_py():
            whole = folder.rows.read_table(name, ["item", "sample", "text", "finish", "usage"])
            for row in whole.filter(wanted).to_pylist():
                text = AnswerText(
                    row["sample"], row["text"], row["finish"], row["usage"]["tokens_out"]
                )
                self.answers.setdefault(row["item"], []).append(text)

    def _measure(self, folder: StageFolder, name: str) -> None:
        """Add up the columns of the likeliest tokens, by the file's footer."""
        footer = folder.rows.read_footer(name)
        for group in range(footer.num_row_groups):
            for place in range(footer.num_columns):
                column = footer.row_group(group).column(place)
                root = column.path_in_schema.split(".")[0]
                if root in ("token_ids", "top_ids", "top_logprobs"):
                    self.stored_bytes += column.total_compressed_size
                if root == "token_ids":
                    self.tokens += column.statistics.num_values
                if root == "top_ids":
                    self.alternatives += column.statistics.num_values

    def summed_lengths(self) -> Lengths | None:
        """The lengths of the answers that were counted; None where there are none."""
        below = np.cumsum(self.lengths)
        if not below[-1]:
            return None

        def at_most(share: float) -> int:
            return int(np.searchsorted(below, share * below[-1]))

        longest = len(self.lengths) - 1
        width = -(-(longest + 1) // BARS)
        bins = -(-(longest + 1) // width)
        padded = np.zeros(bins * width, np.int64)
        padded[: longest + 1] = self.lengths
        # A whole number stands in the middle of its bar.
        edges = [width * number - 0.5 for number in range(bins + 1)]
        counts = padded.reshape(bins, width).sum(axis=1).tolist()
        return Lengths(Histogram(edges, counts), at_most(0.5), at_most(0.9), longest)

    def summed_logits(self) -> Logits | None:
        """The sizes of the likeliest tokens; None where none were kept."""
        if not self.tokens:
            return None
        plain = TOKEN_BYTES * self.tokens + ALTERNATIVE_BYTES * self.alternatives
        return Logits(self.tokens, self.alternatives, self.stored_bytes, plain)


@dataclass
class _Rejected:
    """The rejected rows of all stages, counted, and some of each kind."""

    found: dict[str, _Found]
    total: int = 0
    examples: list[RejectedRow] = field(default_factory=list)
    _kinds: Counter[tuple[str, str | None, str]] = field(default_factory=Counter)

    def read(self, stage: str, folder: StageFolder, keys: Iterable[str]) -> None:
        """Take in the rejected rows of a stage's shards."""
        there = set(folder.rejected.names())
        for key in keys:
            if f"{key}.parquet" in there:
                for row in folder.rejected.read_table(f"{key}.parquet").to_pylist():
                    self._take(stage, row)

    def _take(self, stage: str, row: Row) -> None:
        self.total += 1
        kind = (stage, row["teacher"], row["reason"])
        self._kinds[kind] += 1
        if self._kinds[kind] <= EXAMPLES:
            self.examples.append(RejectedRow(**row))
        if stage == "ask":
            teacher = self.found[row["teacher"]]
            teacher.rejected[row["reason"]] += 1
            item = json.loads(row["original"])["item"]
            if item in teacher.shown:
                told = f"{row['reason']}: {row['detail']}"
                teacher.rejections.setdefault(item, []).append(told)


def _questions(reader: RunReader, planned: int | None, found: _Found) -> int | None:
    if "ask" in reader.finished:
        return found.answered + found.rejected.total()
    return planned


def _place(teacher: AnyTeacher) -> str:
    """Where a teacher's answers come from, in a word or two."""
    if isinstance(teacher, Teacher):
        return f"{teacher.device.count:g} {teacher.device.kind} an engine"
    return "endpoint" if isinstance(teacher, EndpointTeacher) else "recorded"


def _teacher(reader: RunReader, name: str, planned: int | None, found: _Found) -> TeacherWork:
    recipe = reader.loaded.recipe
    assert isinstance(recipe, AskingRecipe)
    section = recipe.teachers[name]
    device = section.device if isinstance(section, Teacher) else None
    summed = total((e for e in reader.entries if e.teacher == name), reader.prices)
    return TeacherWork(
        name=name,
        model=model_name(section),
        samples=recipe.ask[name].samples,
        asked=_questions(reader, planned, found),
        answered=found.answered,
        rejected=dict(found.rejected.most_common()),
        finishes=dict(found.finishes.most_common()),
        used=summed.entry,
        device=device.kind if device else "",
        place=_place(section),
        devices=device.count if device else 0.0,
        money=summed.money,
        lengths=found.summed_lengths(),
        logits=found.summed_logits(),
    )


def _asked_row(
    asks: dict[str, Ask], item: str, fields: dict[str, Any], found: dict[str, _Found]
) -> AskedRow:
    asked = []
    for name, settings in asks.items():
        answers = sorted(found[name].answers.get(item, []), key=lambda answer: answer.sample)
        told = found[name].rejections.get(item, [])
        asked.append(Asked(name, _filled(settings.prompt, fields), answers, told))
    shown = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in fields.items()
    }
    return AskedRow(item, shown, asked)


def _filled(prompt: str, fields: dict[str, Any]) -> str | None:
    try:
        return compile_prompt(prompt).render(fields)
    except (jinja2.UndefinedError, TypeError, ValueError):  # its question is rejected, and says so
        return None


def _prices(reader: RunReader) -> list[Price]:
    book, used = reader.prices, reader.entries
    endpoints = dict.fromkeys(entry.model for entry in used if not entry.device)
    tokens = [
        Price(f"{model}, a million tokens {direction}", amount, price.source)
        for model in endpoints
        if (price := book.tokens.get(model)) is not None
        for direction, amount in (
            ("in", price.input_per_million),
            ("out", price.output_per_million),
        )
    ]
    return [*device_prices((entry.device for entry in used), book), *tokens]


def _warnings(reader: RunReader, spent: float | None) -> list[str]:
    """What a reader must know before trusting the figures."""
    warnings = []
    undone = [stage.name for stage in reader.layout if stage.name not in reader.finished]
    if undone:
        warnings.append(
            f"The run is not finished. Missing: {', '.join(undone)}. The same command goes on."
        )
    in_all = total(reader.spent, reader.prices).money
    if len(reader.spent) > len(reader.entries) and in_all != spent:
        warnings.append(
            "An earlier form of this recipe was worked on in this run; with it, the run has cost "
            f"{money(in_all, reader.prices.currency)}."
        )
    return warnings
