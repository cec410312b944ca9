"""What the driver hands to the workers of one training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.recipe_students import Student, Train
from core.run import Folder, StageFolder
from training.notes import NoteBox
from training.schedule import Schedule


@dataclass(frozen=True)
class Job:
    """All that a worker must know."""

    recipe: str
    """Its name."""
    name: str
    """The student's, in the recipe."""
    student: Student
    base: Path
    """Folder of the model that it starts from."""
    rows: StageFolder
    choices: list[str]
    """The task's, where it has a fixed list."""
    seed: int
    schedule: Schedule
    stage: Folder
    """Where the metrics go."""
    target: Folder
    """Where the finished student goes."""
    storage: Folder
    """Ray Train's own, with the checkpoints."""
    box: NoteBox
    """Where worker 0 tells how far it is."""

    @property
    def train(self) -> Train:
        """How the student is trained."""
        return self.student.train
