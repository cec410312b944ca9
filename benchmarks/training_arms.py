"""The same training in two ways: through Stillhouse's stage, and by a bare loop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from bare_stage import bare_stage
from cores import pin, pin_all_others
from training_rows import DESKS, choice_rows, headlines, text_rows

from core.models import model_folder
from core.recipe_students import Student
from core.run import Folder, Manifest, StageFolder
from core.stage import StageContext
from training.batches import epoch_batches, split
from training.causal import CausalUnits
from training.encoder import ChoiceUnits
from training.families import family_of
from training.schedule import plan
from training.stage import train
from training.units import deal, passes_of

ROOT = Path(__file__).parents[1]
SEED = 0
WARM_STEPS = 3
"""At the beginning, which do not count."""
WORKER = "RayTrainWorker"
"""In the title of the process that trains."""


@dataclass(frozen=True)
class Run:
    """One turn of one arm."""

    rows_per_second: float
    """Over the steady steps."""
    facts: dict[str, Any]
    """What Stillhouse tells of its training; empty for a bare loop."""


class TrainingArms:
    """A student on short rows."""

    def __init__(self, folder: Path, student: Student, number: int) -> None:
        """Write the rows.

        Args:
            folder: For all that is written.
            student: Its training has no rows held out.
            number: Of rows, whole batches.
        """
        assert number % student.train.batch_size == 0
        self._folder = folder
        self._student = student
        self._turns = 0
        read = choice_rows if student.family == "encoder" else text_rows
        self._table = read(headlines()[:number])
        self._rows = StageFolder("rows", Folder(str(folder / "rows")))
        self._rows.commit_shard("all", self._table, pa.table({}))
        self._rows.commit(Manifest("rows", "of-the-rows", {}, ["all"], number, {}))

    def stillhouse(self, *, apart: bool) -> Run:
        """Train by the real stage: Ray Train, our loop, checkpoint and export.

        Args:
            apart: Whether the model has one core, and all else the other.
        """
        self._turns += 1
        folder = self._folder / f"stillhouse-{self._turns}"
        with _worker_apart() if apart else _all_shared():
            facts = train(self._context(folder)).facts
        lines = (folder / "train" / "metrics.jsonl").read_text().splitlines()
        rates = [line["rows_per_second"] for line in map(json.loads, lines) if "loss" in line]
        assert len(rates) == facts["steps"]
        shutil.rmtree(folder)  # a student is large
        batch = self._student.train.batch_size
        return Run(_rate(batch, [batch / rate for rate in rates]), facts)

    def bare(self, *, apart: bool) -> Run:
        """Train by `bare_training.py`, in a process of its own.

        Args:
            apart: Whether it has one core, and all else the other.
        """
        self._turns += 1
        work = self._folder / f"bare-{self._turns}.json"
        seconds = self._folder / f"bare-{self._turns}-seconds.json"
        work.write_text(json.dumps(self._work(seconds)))
        workers = self._student.train.worker_bounds.min
        script = [str(ROOT / "benchmarks" / "bare_training.py"), str(work)]
        launcher = [sys.executable]
        if self._student.train.zero_stage is not None:
            launcher = [
                str(Path(sys.executable).with_name("deepspeed")),
                "--num_gpus",
                str(workers),
            ]
        environment = {
            **os.environ,
            "DS_ACCELERATOR": "cpu",
            "TRANSFORMERS_VERBOSITY": "error",
            "OMP_NUM_THREADS": str(int(self._student.train.device.cpus)),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        process = subprocess.Popen([*launcher, *script], env=environment, stdout=subprocess.DEVNULL)
        pin_all_others([process.pid], {1} if apart else {0, 1})
        pin([process.pid], {0} if apart else {0, 1})
        assert process.wait() == 0
        return Run(_rate(self._student.train.batch_size, json.loads(seconds.read_text())), {})

    def _context(self, folder: Path) -> StageContext:
        settings = {"student": "student", "section": self._student.model_dump(), "seed": SEED}
        return replace(
            bare_stage(folder, None, 1000),
            stage=StageFolder("train-student", Folder(str(folder / "train"))),
            settings=settings,
            inputs={"rows": self._rows},
            model=model_folder,
        )

    def _work(self, seconds: Path) -> dict[str, Any]:
        """What the bare loop has to do: the same rows in the same order, padded as ours are."""
        student, base = self._student, model_folder(self._student.model)
        family = family_of(student, base, DESKS, SEED)
        units = family.units(self._table)
        schedule = plan(self._table.num_rows, student.train)
        training, _ = split(schedule, SEED)
        size, workers = student.train.batch_size, student.train.worker_bounds.min
        batches = [
            batch
            for epoch in range(schedule.epochs)
            for batch in epoch_batches(training, units.row_shapes, size, SEED, epoch)
        ]
        reader = _choices_read if isinstance(units, ChoiceUnits) else _texts_read
        steps = []
        for rank in range(workers):
            steps.append([])
            for batch in batches:
                passes = passes_of(units.of(batch), units, workers, student.train.micro_batch_size)
                shares = [deal(one, units, rank, workers) for one in passes]
                whole = sum(map(len, shares))
                steps[rank].append(
                    [reader(units, share) | {"share": len(share) / whole} for share in shares]
                )
        return {
            "family": student.family,
            "model": str(base),
            "building": {"num_labels": len(DESKS)} if student.family == "encoder" else {},
            "threads": int(student.train.device.cpus),
            "learning_rate": student.train.learning_rate,
            "zero_stage": student.train.zero_stage,
            "steps": steps,
            "seconds": str(seconds),
        }


def _rate(batch: int, seconds: list[float]) -> float:
    steady = seconds[WARM_STEPS:]
    return batch * len(steady) / sum(steady)


def _choices_read(units: ChoiceUnits, numbers: list[int]) -> dict[str, Any]:
    read = [units.inputs[units.first[unit]] for unit in numbers]
    return {
        "inputs": {name: [one[name].tolist() for one in read] for name in units.padding},
        "padding": units.padding,
        "labels": units.targets[numbers].argmax(-1).tolist(),
    }


def _texts_read(units: CausalUnits, numbers: list[int]) -> dict[str, Any]:
    return {
        "prompts": [units.prompts[unit].tolist() for unit in numbers],
        "targets": [units.targets[unit].tolist() for unit in numbers],
        "pad_token": units.pad_token,
    }


@contextlib.contextmanager
def _worker_apart() -> Iterator[None]:
    """While a training runs: its worker has core 0, and all else of ours has core 1."""
    ended = threading.Event()
    found: set[int] = set()

    def look() -> None:
        while not ended.wait(0.5):
            children = psutil.Process().children(recursive=True)
            workers = {one.pid for one in children if WORKER in _title(one)}
            pin_all_others(workers, {1})
            pin(workers, {0})
            found.update(workers)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()
    assert len(found) == 1, "one worker trains"


@contextlib.contextmanager
def _all_shared() -> Iterator[None]:
    pin_all_others((), {0, 1})
    yield


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
