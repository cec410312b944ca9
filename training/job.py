"""What the driver hands to the workers of one training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.recipe_students import Train
from core.run import Folder, StageFolder
from training.notes import NoteBox
from training.schedule import Schedule


@dataclass(frozen=True)
class Job:
    """All that a worker must know."""

    recipe: str
    """Its name."""
    student: str
    """Its name in the recipe."""
    model: str
    """Name of the model that it starts from."""
    base: Path
    """Folder of that model."""
    rows: StageFolder
    choices: list[str]
    train: Train
    seed: int
    schedule: Schedule
    target: Folder
    """Where the finished student goes."""
    storage: Folder
    """Ray Train's own, with the checkpoints."""
    box: NoteBox
    """Where worker 0 tells how far it is."""
