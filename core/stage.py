"""What the workflow hands to a room's stage function, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from core.errors import StillhouseError
from core.ledger import Entry
from core.recipe import LoadedRecipe
from core.run import StageFolder
from core.teacher import Engine

SAMPLE = "sample"
"""Setting of a stage: how many of its rows each teacher answers."""


@dataclass(frozen=True)
class LaneProgress:
    """How far one teacher of a stage is."""

    teacher: str
    done: int
    total: int
    used: Entry
    """What it has used so far in this attempt."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is; shown live, and never stored."""

    done: int
    total: int
    unit: str = "rows"
    used: tuple[Entry, ...] = ()
    """What the stage has used so far in this attempt, to be priced while time passes."""
    lanes: tuple[LaneProgress, ...] = ()
    """The same by teacher, where the stage asks teachers."""
    epochs: tuple[dict[str, Any], ...] = ()
    """Of a training: an entry for each finished epoch, with its losses."""


@dataclass(frozen=True)
class StageContext:
    """Everything that a stage function may use."""

    stage: StageFolder
    """Where its output goes; may hold committed shards of an earlier attempt."""
    recipe: LoadedRecipe
    settings: dict[str, Any]
    """The stage's own settings, as its method laid them out."""
    inputs: dict[str, StageFolder]
    """Finished stages that it reads, by the role that its method gave them."""
    engine: Callable[[str], Engine]
    """The running engine of a teacher by its name in the recipe, started when first asked for."""
    model: Callable[[str], Path]
    """The folder of a model by its name in the recipe, fetched or converted when asked for."""
    fingerprint: str
    """Of the stage, the number of its rows included."""
    attempt: str
    """Names this try in the ledger."""
    write_entry: Callable[[Entry], None]
    """Puts what the attempt has used so far into the ledger."""
    show: Callable[[Progress], None]
    """Shows how far the stage is."""
    over_budget: Callable[[Sequence[Entry]], StillhouseError | None]
    """The error to stop with, if what is spent and what these entries foretell is too much."""
    logs: Path
    """A folder on this machine for the output of other libraries."""

    @property
    def sample(self) -> int | None:
        """Rows that each teacher answers where a sample is wanted; None for all of them."""
        found: int | None = self.settings.get(SAMPLE)
        return found


@dataclass(frozen=True)
class StageResult:
    """What a stage function made; the workflow turns it into the manifest."""

    shards: list[str]
    rows: int
    rejected: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class StageFunction(Protocol):
    """The one form of every room's entry points."""

    def __call__(self, context: StageContext) -> StageResult:
        """Do what is not yet committed and return what is there."""
        ...
