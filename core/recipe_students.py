"""What a recipe says of its students, and of how they are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.recipe_section import Device, Section


class Objective(Section):
    """The loss of a student that chooses: lambda*CE(y) + (1-lambda)*CE(p_tau) (2412.09807)."""

    hard_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    """lambda, the weight of the hard label; the rest goes to the teacher's soft label."""
    temperature: float = Field(default=1.0, ge=0.0)
    """tau of the teacher's softmax; 0 puts all weight on its first choice."""


class Train(Section):
    """How a student is trained."""

    epochs: int = Field(default=5, ge=1)
    """Passes over the training rows."""
    min_steps: int = Field(default=1, ge=1)
    """Optimizer steps at least: epochs are repeated until then, so that few rows train as long as
    many."""
    batch_size: int = Field(default=16, ge=1)
    """Rows per optimizer step, over all workers together."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak rate of AdamW."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    warmup_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the rate rises from zero; it then falls linearly to zero."""
    max_length: int = Field(default=256, ge=8)
    """Tokens of an input at most; longer ones are cut and counted."""
    objective: Objective = Objective()
    """The loss."""
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training rows held out to pick the best epoch; the evaluation rows never do."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage."""
    workers: int = Field(default=1, ge=1)
    """Ray Train workers."""
    device: Device = Device()
    """What one worker runs on."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimizer steps between checkpoints."""


class Student(Section):
    """A small model that takes over from the teacher."""

    family: Literal["encoder"] = "encoder"
    """The kind of model."""
    model: str
    """The model it starts from, named as a teacher's is."""
    train: Train = Train()
    """How it is trained."""
