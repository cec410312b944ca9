"""Reads a run of teacher data, finished or not, into its report.

The answers are read a file at a time and counted; only those to some rows are kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.ledger import total
from core.recipe import TrainingRecipe
from core.recipe_teachers import AnyTeacher, EndpointTeacher, Teacher
from core.run import Run, StageFolder
from pipelines.asked_texts import FILLING_ERRORS, fill_in
from pipelines.plan import read_plan
from stillhouse.asking import ASK, AskingRecipe
from stillhouse.gather_ablation import ablations_of
from stillhouse.gather_arms import arm_tables
from stillhouse.gather_assistance import assistance_of
from stillhouse.gather_judges import complexities, judge_tables
from stillhouse.gather_prompt_measures import measured_prompts
from stillhouse.gather_prompt_search import search_of
from stillhouse.gather_ratings import people
from stillhouse.gather_selection import choices
from stillhouse.gather_side_by_side import side_by_side
from stillhouse.gather_students import (
    MAKES_ROWS,
    compared_students,
    judged,
    training_rows,
    trainings,
)
from stillhouse.gather_sweep import sweep_of
from stillhouse.harness import read_evaluated
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
from stillhouse.stages import Stage

EXAMPLES = 20
"""Rejected rows of one stage, teacher and reason that the report's data holds."""

MOST_CHARACTERS = 5_000_000
"""Of the input rows that the report's data holds, together."""

BEFORE = (
    "pipelines.inputs:read_inputs",
    "pipelines.input_curation:curate_inputs",
    "pipelines.in_context:show",
)
"""What rows pass before anybody is asked about them."""

COUNTED = ["teacher", "item", "finish", "usage"]
"""Columns of the answers that are read of all of them."""

SHOWN = ["item", "sample", "text", "replies", "finish", "usage"]
"""Of them, those of the answers that are shown."""

BARS = 20
"""Of a histogram of lengths, at most."""

TOKEN_BYTES, ALTERNATIVE_BYTES = 4, 6
"""Of `token_ids`, and of `top_ids` and `top_logprobs` together, as `core.rows` has them."""


@dataclass(frozen=True)
class _Lane:
    """What one teacher is asked in one stage."""

    stage: Stage
    teacher: str
    alone: bool
    """Whether it is asked in no other stage whose answers are shown."""
    chosen: dict[str, Any]
    """What of the asking was chosen in the run; empty where it has not been, or nothing is."""

    @property
    def name(self) -> str:
        """What it is called in the report."""
        if self.alone:
            return self.teacher
        return f"{self.teacher}, {self.stage.name.removeprefix('ask').lstrip('-') or 'elaborate'}"

    @property
    def rows(self) -> str:
        """The stage that has the rows."""
        return self.stage.growing["inputs"]

    @property
    def settings(self) -> dict[str, Any]:
        """How it is asked."""
        return {"prompt": None, **self.stage.settings["ask"][self.teacher], **self.chosen}

    @property
    def keeps_logits(self) -> bool:
        """Whether the likeliest tokens are kept of its answers."""
        return bool(self.settings.get("sampling", {}).get("top_logprobs"))


def _lanes(reader: RunReader) -> list[_Lane]:
    """Who is asked about rows that something is learnt from, or about all rows where nothing is."""
    extracting = [stage for stage in reader.layout if stage.run in MAKES_ROWS]
    learnt = {
        name
        for stage in extracting
        for role, name in stage.inputs.items()
        if role.startswith("answers")
    }
    stages = [
        stage
        for stage in reader.layout
        if stage.run == ASK and (stage.name in learnt or not extracting)
    ]
    return [
        _Lane(stage, teacher, len(stages) == 1, _chosen(reader, stage).get(teacher, {}))
        for stage in stages
        for teacher in stage.teachers
    ]


def _chosen(reader: RunReader, stage: Stage) -> dict[str, Any]:
    """By teacher: what was chosen for a stage."""
    name = stage.decisions.get("chosen")
    if name is None or name not in reader.finished:
        return {}
    found: dict[str, Any] = reader.manifest(name).facts["chosen"]
    return found


def gather_teacher_data(run: Run) -> TeacherDataReport:
    """Read a run into its report."""
    reader = RunReader(run)
    recipe = reader.loaded.recipe
    assert isinstance(recipe, AskingRecipe)
    lanes = _lanes(reader)
    stages = {lane.stage.name: lane.stage for lane in lanes}
    asked_about = dict.fromkeys(lane.rows for lane in lanes)
    shown = {rows: _some_inputs(reader, rows) for rows in asked_about}
    found = {
        (lane.stage.name, lane.teacher): _Found(set(shown[lane.rows]), lane.keeps_logits)
        for lane in lanes
    }
    rejected = _Rejected(found)
    for name, folder in reader.finished.items():
        if name not in stages:
            rejected.read(name, folder, reader.manifest(name).shards)
    planned: dict[tuple[str, str], int] = {}
    for name, stage in stages.items():
        keys, counts = _shards(reader, name, stage.teachers)
        planned.update({(name, teacher): number for teacher, number in counts.items()})
        folder = _folder(reader, name)
        for key in keys:
            table = folder.rows.read_table(f"{key}.parquet", COUNTED)
            if table.num_rows:  # a shard is of one teacher
                teacher = table["teacher"][0].as_py()
                found[name, teacher].read(folder, f"{key}.parquet", table)
        rejected.read(name, folder, keys)
    summed = total(reader.entries, reader.prices)
    steps = [
        (InputStep(stage.name, manifest.rows, manifest.rejected), stage.run)
        for stage in reader.layout
        if stage.name in reader.finished and stage.name not in stages
        for manifest in [reader.manifest(stage.name)]
    ]
    tables = arm_tables(reader)
    return TeacherDataReport(
        name=recipe.name,
        method=recipe.method,
        warnings=_warnings(reader, summed.money),
        currency=reader.prices.currency,
        prices=_prices(reader),
        steps=[step for step, run in steps if run in BEFORE],
        teachers=[_teacher(reader, lane, planned, found) for lane in lanes],
        total=summed.entry,
        money=summed.money,
        rejected=Samples(rejected.total, rejected.examples),
        rows=Samples(
            sum(reader.manifest(rows).rows for rows in asked_about if rows in reader.finished),
            [
                _asked_row([lane for lane in lanes if lane.rows == rows], item, fields, found)
                for rows, some in shown.items()
                for item, fields in some.items()
            ],
        ),
        provenance=provenance(reader, _students(reader)),
        later=[step for step, run in steps if run not in BEFORE],
        training_rows=training_rows(reader),
        trainings=trainings(reader),
        judged=judged(reader),
        arms=tables,
        choices=choices(reader),
        prompts=measured_prompts(reader),
        prompt_search=search_of(reader),
        assistance=assistance_of(reader),
        judges=judge_tables(reader),
        harness=read_evaluated(run),
        people=people(reader),
        complexities=complexities(reader, tables),
        side_by_side=side_by_side(reader),
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


def _shards(reader: RunReader, stage: str, teachers: list[str]) -> tuple[list[str], dict[str, int]]:
    """The committed shards of answers; while not all are, also the questions to each teacher."""
    if stage in reader.finished:
        return reader.manifest(stage).shards, {}
    state, folder = reader.run.state(), _folder(reader, stage)
    assert state is not None, "the run exists"
    plans = {
        teacher: read_plan(folder.plan, f"{teacher}.{state['fingerprints'][stage][:12]}")
        for teacher in teachers
    }
    there = folder.committed_shards()
    shards = {teacher: plan for teacher, plan in plans.items() if plan is not None}
    return (
        [shard.key for plan in shards.values() for shard in plan if shard.key in there],
        {teacher: sum(shard.rows for shard in plan) for teacher, plan in shards.items()},
    )


def _some_inputs(reader: RunReader, rows: str) -> dict[str, dict[str, Any]]:
    """The fields of some rows of a stage, by id, spread evenly over all."""
    if rows not in reader.finished:
        return {}
    step, place, characters = sample_step(reader.manifest(rows).rows), 0, 0
    found: dict[str, dict[str, Any]] = {}
    for table in reader.finished[rows].iter_shards(["id", "fields"]):
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
            whole = folder.rows.read_table(name, SHOWN)
            for row in whole.filter(wanted).to_pylist():
                said = "\n\n".join(row["replies"] or [row["text"]])
                text = AnswerText(row["sample"], said, row["finish"], row["usage"]["tokens_out"])
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

    found: dict[tuple[str, str], _Found]
    """By stage and teacher."""
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
        teacher = self.found.get((stage, row["teacher"]))
        if teacher is not None:
            teacher.rejected[row["reason"]] += 1
            item = json.loads(row["original"])["item"]
            if item in teacher.shown:
                told = f"{row['reason']}: {row['detail']}"
                teacher.rejections.setdefault(item, []).append(told)


def _place(teacher: AnyTeacher) -> str:
    """Where a teacher's answers come from, in a word or two."""
    if isinstance(teacher, Teacher):
        return f"{teacher.device.count:g} {teacher.device.kind} an engine"
    return "endpoint" if isinstance(teacher, EndpointTeacher) else "recorded"


def _teacher(
    reader: RunReader,
    lane: _Lane,
    planned: dict[tuple[str, str], int],
    by_lane: dict[tuple[str, str], _Found],
) -> TeacherWork:
    key = (lane.stage.name, lane.teacher)
    found, section = by_lane[key], reader.loaded.recipe.teachers[lane.teacher]
    device = section.device if isinstance(section, Teacher) else None
    used = [
        entry
        for entry in reader.entries
        if entry.teacher == lane.teacher and (lane.alone or entry.stage == lane.stage.name)
    ]
    summed = total(used, reader.prices)
    done = lane.stage.name in reader.finished
    return TeacherWork(
        name=lane.name,
        model=model_name(section),
        samples=lane.stage.extent["samples"][lane.teacher],
        asked=found.answered + found.rejected.total() if done else planned.get(key),
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
    lanes: list[_Lane],
    item: str,
    fields: dict[str, Any],
    found: dict[tuple[str, str], _Found],
) -> AskedRow:
    asked = []
    for lane in lanes:
        seen = found[lane.stage.name, lane.teacher]
        answers = sorted(seen.answers.get(item, []), key=lambda answer: answer.sample)
        prompt = _filled(lane.settings["prompt"], fields, lane.stage.settings["turns"])
        asked.append(Asked(lane.name, prompt, answers, seen.rejections.get(item, [])))
    shown = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in fields.items()
    }
    return AskedRow(item, shown, asked)


def _filled(prompt: Any, fields: dict[str, Any], turns: str | None) -> str | None:
    """All that was said to a teacher, a paragraph for each part of it."""
    if prompt is None:  # it is not chosen yet
        return None
    texts = {"user": prompt, "system": ""} if isinstance(prompt, str) else prompt
    try:
        asked = fill_in(**texts, fields=fields, turns=turns)
    except FILLING_ERRORS:  # its question is rejected, and says so
        return None
    return "\n\n".join(filter(None, [asked.system, *asked.turns]))


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
