"""How much memory a training takes, before it starts.

Of a device there are five parts:

    weights       what the model computes with
    gradients     what a whole batch adds up
    optimizer     AdamW's two moments, and the weights in float32 where the model's are bfloat16
    activations   what the forward pass keeps for the backward pass (`training.activations`)
    buffers       what the strategy needs beside them at its fullest moment

The first three are known exactly, but for padding to whole shares. What DeepSpeed 0.19.8 keeps was
read in its code and is compared with it in the tests. Its own estimators
(`estimate_zero2_model_states_mem_needs`, `estimate_zero3_model_states_mem_needs`) are of no use
here: they know no other weights than of 16 bits, all of them trained, no stage below 2 and no
activations, and of stage 3 leave the 16-bit gradients out. Where they speak of the same, the tests
hold that they say the same.

Activations and buffers are estimates for the fullest step that the recipe allows: every sequence as
long as it may be, as many of them as a pass may have.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from core.recipe_students import LogitObjective, Offload, SequenceObjective, Student
from training.activations import Kept, Shape, count_activations
from training.architecture import Size, build_empty, read_config, size_of
from training.strategy import precision_of

HEADROOM = 0.1
"""Share of a device's memory that is left free: for the driver and the CUDA context, for NCCL's own
buffers, and for the holes between the allocator's blocks."""

REDUCE_BUCKET = 500_000_000
"""Numbers in the buffer that DeepSpeed sums gradients in over the workers, whatever the model."""

GATHERED = 1_000_000_000
"""Weights that stage 3 keeps gathered, at most, because they will soon be used again."""

PREFETCHED = 50_000_000
"""Weights that it gathers ahead."""

SUB_GROUP = 1_000_000_000
"""Weights that its optimizer steps at once."""

CHOICES = 5
"""Choices of a row, where rows have their own and the recipe does not tell how many."""

MOST_WORKERS = 1024
"""More are not proposed."""

OFF_GPU = Offload(optimizer=True, parameters=True)

VARIANTS: list[tuple[int | None, Offload | None]] = [
    (None, None),
    (0, None),
    (1, None),
    (2, None),
    (2, Offload()),
    (3, None),
    (3, Offload()),
    (3, OFF_GPU),
]
"""Of ZeRO stage and offload; with a large model each has less on the device than the one before,
and is slower."""


@dataclass(frozen=True)
class Setting:
    """What a recipe can change to take less memory."""

    zero_stage: int | None
    offload: Offload | None
    workers: int
    micro_batch_size: int | None
    activation_checkpointing: bool


@dataclass(frozen=True)
class States:
    """Bytes of a training on one device that do not depend on what is read."""

    weights: int
    gradients: int
    optimizer: int
    backward: int
    """Buffers of the backward pass, beside activations."""
    step: int = 0
    """Buffers of the optimizer's step, when activations are gone."""
    host: int = 0
    """What is offloaded, in the memory of the machine, for each worker."""


@dataclass(frozen=True)
class Needs:
    """Bytes of a training on one device, at the fullest moment."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    host: int
    """Beside them, in the memory of the machine, for each worker."""

    @property
    def total(self) -> int:
        """On the device."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers

    def fit(self, memory: float) -> bool:
        """Whether a device has room for them.

        Args:
            memory: Its bytes.
        """
        return self.total <= usable(memory)


def usable(memory: float) -> float:
    """The bytes of a device that a training may take."""
    return memory * (1 - HEADROOM)


def states(size: Size, setting: Setting, *, half: bool, gpu: bool) -> States:
    """What weights, gradients and optimizer take, and the buffers that go with them.

    Args:
        size: Of the model.
        setting: Of the training.
        half: Whether the arithmetic is bfloat16.
        gpu: On a CPU only the part of a buffer that is used is real.
    """
    stage, workers, trained = setting.zero_stage, setting.workers, size.trained
    if stage is None:
        # Autocast leaves weights in float32. Workers sum gradients in a copy of all of them.
        summed = 4 * trained if workers > 1 else 0
        return States(4 * size.parameters, 4 * trained, 8 * trained, summed)
    number = 2 if half else 4
    if stage == 0:
        summed = number * min(REDUCE_BUCKET, trained) if workers > 1 else 0
        weights, gradients = number * size.parameters, number * trained
        if not half:
            return States(weights, gradients, 8 * trained, summed)
        return States(weights, gradients, 12 * trained, summed, step=4 * trained)
    bucket = number * (REDUCE_BUCKET if gpu else min(REDUCE_BUCKET, trained))
    # A tensor's gradient arrives whole, and is divided then.
    whole = number * min(size.largest, trained)
    return (_stages_1_and_2 if stage < 3 else _stage_3)(size, setting, number, bucket, whole)


def _stages_1_and_2(size: Size, setting: Setting, number: int, bucket: int, whole: int) -> States:
    share = math.ceil(size.trained / setting.workers)
    weights = number * size.parameters
    if setting.offload is not None and setting.offload.optimizer:
        # In float32 weights, two moments and gradients; weights as the model has them, and
        # gradients so, which the passes of a batch add up.
        host = (16 + 2 * number) * share
        return States(weights, 0, 0, bucket + 2 * whole, host=host)
    # Stage 1 divides gradients as stage 2 does, but only those of a batch's last pass.
    gradients = number * (size.trained if setting.zero_stage == 1 else share)
    # The optimizer has weights of its own even where the model's are float32, too.
    return States(weights, gradients, 12 * share, bucket + whole, step=_copy(number) * share)


def _stage_3(size: Size, setting: Setting, number: int, bucket: int, whole: int) -> States:
    share = math.ceil(size.trained / setting.workers)
    stored = number * math.ceil(size.parameters / setting.workers)
    gathered = number * min(size.parameters, max(GATHERED, size.largest) + PREFETCHED)
    # A full bucket is put into another order in a copy; a tensor that is larger than it is not.
    backward = bucket + gathered + max(whole, number * min(REDUCE_BUCKET, size.trained))
    offload = setting.offload or Offload(optimizer=False, parameters=False)
    weights, host = (0, stored) if offload.parameters else (stored, 0)
    if offload.optimizer:
        return States(weights, 0, 0, backward, host=host + (16 + number) * share)
    step = _copy(number) * min(share, SUB_GROUP)
    return States(weights, number * share, 12 * share, backward, step, host)


def _copy(number: int) -> int:
    """Bytes of each gradient that the optimizer's step copies: in one row, and then in float32."""
    return 4 if number == 4 else number + 4


class Memory:
    """What the training of one student takes, under any setting."""

    def __init__(self, folder: Path, student: Student, choices: int) -> None:
        """Build the student's model without its weights.

        Args:
            folder: With the config.json of the model that it starts from.
            student: The recipe's section.
            choices: Of every row; 0 where rows have their own.

        Raises:
            UseError: The model is unknown, or of another family.
        """
        self.student = student
        self._folder = folder
        self._choices = choices or CHOICES
        self._gpu = student.train.device.gpus > 0
        self._half = precision_of(student.train) == torch.bfloat16
        config = read_config(folder)
        longest = getattr(config, "max_position_embeddings", math.inf)
        train = student.train
        writes = 0 if student.family == "encoder" else train.max_answer_length
        reads = train.max_length + (writes if student.family == "causal" else 0)
        self.shape = Shape(student.family, 1, int(min(reads, longest)), writes)
        self.size = size_of(self._model(torch.float32))
        self._kept: dict[bool, tuple[Kept, Kept]] = {}

    @property
    def own(self) -> Setting:
        """What the recipe says; of a number of workers the least, as each then has the most."""
        train = self.student.train
        return Setting(
            train.zero_stage,
            train.offload,
            train.worker_bounds.min,
            train.micro_batch_size,
            train.activation_checkpointing,
        )

    @property
    def precision(self) -> str:
        """Of the arithmetic."""
        return "bfloat16" if self._half else "float32"

    def sequences(self, setting: Setting) -> int:
        """How many go through a worker's model at once."""
        student = self.student
        units = student.train.batch_size * _units_of_row(student)
        passed = math.ceil(units / setting.workers)
        at_once = min(setting.micro_batch_size or passed, passed)
        return at_once * (self._choices if student.head == "choices" else 1)

    def needs(self, setting: Setting) -> Needs:
        """What a training takes of each device."""
        found = states(self.size, setting, half=self._half, gpu=self._gpu)
        activations = self._activations(setting)
        return Needs(
            found.weights,
            found.gradients,
            found.optimizer,
            activations,
            max(found.backward, found.step - activations),
            found.host,
        )

    def variants(self) -> list[tuple[Setting, Needs]]:
        """The recipe's training under every ZeRO stage, with and without offload."""
        own = self.own
        found = [replace(own, zero_stage=stage, offload=away) for stage, away in VARIANTS]
        if own not in found:
            found.append(own)
        return [(setting, self.needs(setting)) for setting in found]

    def nearest(self, memory: float) -> list[dict[str, object]]:
        """What to change for a training to fit, where it does not.

        Args:
            memory: Of a device, in bytes.

        Returns:
            The single changes that do, each by the keys of `Train`; if there are none, the least
            that does together; nothing if that does not help either.
        """
        single = [_changes(self.own, found) for found in self._single(memory)]
        return single or [_changes(self.own, found) for found in self._together(memory)]

    def _single(self, memory: float) -> Iterator[Setting]:
        """Of each thing that a recipe can change, the least change that makes a training fit."""
        own = self.own
        units = math.ceil(self.student.train.batch_size * _units_of_row(self.student) / own.workers)
        passed = min(own.micro_batch_size or units, units)
        later = VARIANTS[_place(own) + 1 :]
        ways = [
            [replace(own, activation_checkpointing=True)],
            [replace(own, micro_batch_size=half) for half in _halves(passed)],
            [replace(own, zero_stage=stage, offload=away) for stage, away in later],
        ]
        for settings in ways:
            fitting = (setting for setting in settings if self.needs(setting).fit(memory))
            yield from itertools.islice(fitting, 1)
        yield from self._with_more_workers(own, memory)

    def _together(self, memory: float) -> Iterator[Setting]:
        """The first variant that fits with all else done, less what of that it can do without."""
        least = replace(self.own, micro_batch_size=1, activation_checkpointing=True)
        rest = [
            replace(least, zero_stage=stage, offload=away)
            for stage, away in VARIANTS[_place(self.own) :]
        ]
        found = next((one for one in rest if self.needs(one).fit(memory)), None)
        if found is None:
            found = next(self._with_more_workers(rest[-1], memory), None)
        if found is None:
            return
        for key in ("micro_batch_size", "activation_checkpointing"):
            back = replace(found, **{key: getattr(self.own, key)})
            if self.needs(back).fit(memory):
                found = back
        yield found

    def _with_more_workers(self, setting: Setting, memory: float) -> Iterator[Setting]:
        """A setting with the fewest workers that make it fit, if any number does."""
        numbers = range(setting.workers + 1, MOST_WORKERS + 1)
        settings = [replace(setting, workers=workers) for workers in numbers]
        place = bisect.bisect_left(settings, 1, key=lambda one: self.needs(one).fit(memory))
        yield from settings[place : place + 1]

    def _activations(self, setting: Setting) -> int:
        """Linear in the sequences: two counts tell all."""
        autocast = self._half and setting.zero_stage is None
        if autocast not in self._kept:
            whole = autocast or not self._half
            model = self._model(torch.float32 if whole else torch.bfloat16)
            alone, both = (
                count_activations(
                    model, replace(self.shape, sequences=number), gpu=self._gpu, autocast=autocast
                )
                for number in (1, 2)
            )
            self._kept[autocast] = (alone, both)
        one, two = (
            kept.checkpointed if setting.activation_checkpointing else kept.whole
            for kept in self._kept[autocast]
        )
        return one + (self.sequences(setting) - 1) * (two - one)

    def _model(self, dtype: torch.dtype) -> nn.Module:
        return build_empty(read_config(self._folder), self.student, self._choices, dtype)


def _units_of_row(student: Student) -> int:
    """What of a row goes through the model apart: its answer, and each rationale."""
    objective = student.objective
    if isinstance(objective, SequenceObjective):
        rationales = sum(1 for weight in objective.rationale_weights.values() if weight)
        return rationales + bool(objective.answer_weight)
    assert student.family == "encoder" or isinstance(objective, LogitObjective)
    return 1


def _place(setting: Setting) -> int:
    """Of the first variant that has no more on a device than a setting."""
    if (setting.zero_stage, setting.offload) in VARIANTS:
        return VARIANTS.index((setting.zero_stage, setting.offload))
    return len(VARIANTS) - 1


def _halves(number: int) -> list[int]:
    """A half of it, a quarter, and so on to 1."""
    return [number // 2**power for power in range(1, number.bit_length())]


def _changes(own: Setting, other: Setting) -> dict[str, object]:
    """The keys of `Train` in which a setting differs from the recipe's."""
    return {key: value for key, value in vars(other).items() if value != getattr(own, key)}
