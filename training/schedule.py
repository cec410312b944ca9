"""How long a training is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from core.recipe_students import Train

ROWS_TO_SPARE_ONE = 10
"""Below this many rows none is held out for validation."""


@dataclass(frozen=True)
class Schedule:
    """Rows, epochs and steps of one training."""

    training_rows: int
    validation_rows: int
    steps_per_epoch: int
    epochs: int
    warmup_steps: int
    """Of these, in which the learning rate rises."""

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.steps_per_epoch * self.epochs


def plan(rows: int, train: Train) -> Schedule:
    """Lay out the training on a number of rows."""
    validation = 0
    if train.validation_share > 0 and rows >= ROWS_TO_SPARE_ONE:
        validation = max(1, int(rows * train.validation_share))
    training = rows - validation
    steps_per_epoch = math.ceil(training / train.batch_size)
    epochs = max(train.epochs, math.ceil(train.min_steps / steps_per_epoch))
    warmup = math.ceil(steps_per_epoch * epochs * train.warmup_share)
    return Schedule(training, validation, steps_per_epoch, epochs, warmup)
