"""The memory that students' trainings take, on the terminal, and the refusal of what cannot fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from core.errors import UseError
from core.models import config_folder
from core.recipe import TrainingRecipe
from core.recipe_students import Offload, Student
from stillhouse.report.wording import plural
from stillhouse.stages import Stage
from stillhouse.workflow import Plan

if TYPE_CHECKING:
    from training.memory import Memory, Needs, Setting

TRAINING = "training.stage:train"
"""The stage function that trains a student."""

OWN = "*"
"""Stands before the recipe's own setting."""

BOTH = {"optimizer and parameters": "both"}
"""Of what is offloaded, in a word."""


def students_of(stages: Iterable[Stage]) -> list[str]:
    """The students that some stages train, each once."""
    names = (stage.settings["student"] for stage in stages if stage.run == TRAINING)
    return list(dict.fromkeys(names))


def refuse_what_cannot_fit(plan: Plan, stages: list[Stage]) -> None:
    """Refuse trainings for which their devices have no room.

    Where nobody has said what a device has, nothing is refused, and nothing heavy is loaded.

    Args:
        plan: Of the run.
        stages: Those that are to run.

    Raises:
        UseError: With what the first such student needs, what there is, and what would fit.
    """
    pending = [stage for stage in stages if plan.done(stage.name) is None]
    for name in students_of(pending):
        student = _student(plan, name)
        if student.train.device.memory is not None:
            memory = _memory_of(plan, name)
            fault = _fault(name, student, memory)
            if fault is not None:
                raise fault


def memory_tables(plan: Plan) -> Iterator[RenderableType]:
    """What every student's training takes of each device, by ZeRO stage and offload.

    Raises:
        UseError: A student cannot fit, after all have been told of.
    """
    faults = []
    for name in students_of(plan.stages):
        student, memory = _student(plan, name), _memory_of(plan, name)
        yield Group(_heading(name, student, memory), _table(student, memory))
        fault = _fault(name, student, memory)
        if fault is not None:
            faults.append(fault)
    if faults:
        raise faults[0]


def _student(plan: Plan, name: str) -> Student:
    recipe = plan.loaded.recipe
    assert isinstance(recipe, TrainingRecipe), "another has no stage that trains"
    return recipe.students[name]


def _memory_of(plan: Plan, name: str) -> Memory:
    from training.memory import Memory  # loads torch and transformers

    student = _student(plan, name)
    choices = len(plan.loaded.training_recipe.choices)
    return Memory(config_folder(student.model), student, choices)


def _heading(name: str, student: Student, memory: Memory) -> str:
    from training.memory import HEADROOM

    own, size, shape = memory.own, memory.size, memory.shape
    trained = "" if size.trained == size.parameters else f", {size.trained:,} of them trained"
    tokens = f"{shape.length} tokens"
    if student.family == "seq2seq":
        tokens += f" read and {shape.answer_length} written"
    known = student.train.device.memory
    there = (
        "device.memory_gib is not said, so nothing is refused"
        if known is None
        else f"{gib(known)} there, of which {HEADROOM:.0%} stay free"
    )
    checkpointing = "with" if own.activation_checkpointing else "without"
    return (
        f"\nMemory of {name}: {size.parameters:,} parameters{trained}; "
        f"{plural(own.workers, 'worker')}, each {plural(memory.sequences(own), 'sequence')} of "
        f"{tokens} at once, "
        f"{memory.precision}, {checkpointing} activation checkpointing. "
        f"Of each {_device(student)}, in GiB; the recipe's own is marked; {there}.\n"
    )


def _table(student: Student, memory: Memory) -> Table:
    known = student.train.device.memory
    table = Table(box=None, pad_edge=False)
    for column in ("training", "offloaded"):
        table.add_column(column, no_wrap=True)
    # Short enough for a terminal of 80 columns.
    for column in ("weights", "grads", "optim.", "activ.", "buffers", "total", "host"):
        table.add_column(column, justify="right", no_wrap=True)
    if known is not None:
        table.add_column("fits")
    for setting, needs in memory.variants():
        fits = [] if known is None else ["yes" if needs.fit(known) else "no"]
        own = setting == memory.own
        name = f"{OWN if own else ' '} {_variant(setting)}"
        away = " and ".join(_offloaded(setting.offload))
        table.add_row(
            name, BOTH.get(away, away), *_cells(needs), *fits, style="bold" if own else ""
        )
    return table


def _cells(needs: Needs) -> list[str]:
    parts = (
        needs.weights,
        needs.gradients,
        needs.optimizer,
        needs.activations,
        needs.buffers,
        needs.total,
    )
    return [f"{part / 2**30:,.2f}" for part in parts] + [
        f"{needs.host / 2**30:,.2f}" if needs.host else ""
    ]


def _variant(setting: Setting) -> str:
    if setting.zero_stage is None:
        return "DDP"
    return f"ZeRO {setting.zero_stage}"


def _offloaded(offload: Offload | None) -> list[str]:
    if offload is None:
        return []
    parts = {"optimizer": offload.optimizer, "parameters": offload.parameters}
    return [name for name, away in parts.items() if away]


def _fault(name: str, student: Student, memory: Memory) -> UseError | None:
    """What is wrong with a training that does not fit; None where it does, or nobody knows."""
    from training.memory import usable

    known = student.train.device.memory
    if known is None:
        return None
    needs = memory.needs(memory.own)
    if needs.fit(known):
        return None
    ways = memory.nearest(known)
    told = ", or ".join(_told(changes) for changes in ways)
    return UseError(
        f"students.{name}.train",
        f"it needs {gib(needs.total)} on each {_device(student)}, and {gib(known)} are there, of "
        f"which {gib(usable(known))} can be used.",
        f"Set {told}. `stillhouse plan` shows what each part takes."
        if ways
        else "Take a smaller student, shorter texts, or devices with more memory.",
    )


def _told(changes: dict[str, object]) -> str:
    parts = []
    for key, value in changes.items():
        if isinstance(value, Offload):
            parts += [f"offload.{part}: true" for part in _offloaded(value)]
        elif key != "offload":
            parts.append(f"{key}: {str(value).lower()}")
    return " and ".join(parts)


def _device(student: Student) -> str:
    device = student.train.device
    return f"GPU ({device.kind})" if device.gpus else "worker"


def gib(size: float) -> str:
    """Bytes in GiB, to be read."""
    return f"{size / 2**30:,.1f} GiB"
