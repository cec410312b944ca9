"""EleutherAI's lm-eval on a run's students: published benchmarks, by the harness's own tasks.

lm-eval reads its data sets from a hub. Where there is none, they must be in the hub's cache, or the
tasks name files: a folder of task files is given with `--tasks`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.errors import UseError, WorkError
from core.models import model_folder
from core.recipe import TrainingRecipe
from core.run import Run
from stillhouse.report.harness import Evaluated, TaskScore
from stillhouse.run_reader import RunReader

FOLDER = "harness"
"""Of a run: a file for each student."""

TRAIN = "training.stage:train"


def evaluate_run(
    run: Run,
    student: str | None,
    tasks: Sequence[str],
    *,
    files: Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    base: bool = False,
) -> Evaluated:
    """Have lm-eval judge a student that writes, and keep what it finds in the run.

    Args:
        run: That has trained it.
        student: Its name, as its stage `train-NAME` has it; the first if None.
        tasks: Names of lm-eval's tasks.
        files: A folder with further task files.
        limit: Rows of each task at most.
        batch_size: Rows of one forward pass.
        base: Whether the model that it started from is judged as well.

    Raises:
        UseError: There is no such student or task, or lm-eval is not installed.
        WorkError: The data of a task could not be had.
    """
    name, folder, start = _student(run, student)
    _check_installed()
    from importlib.metadata import version

    found = Evaluated(
        student=name,
        scores=_judge(folder, tasks, files, limit, batch_size),
        base=_judge(model_folder(start), tasks, files, limit, batch_size) if base else [],
        limit=limit,
        version=version("lm-eval"),
    )
    run.folder.child(FOLDER).write_json(f"{name}.json", asdict(found))
    return found


def read_evaluated(run: Run) -> list[Evaluated]:
    """What lm-eval has found of a run's students."""
    folder = run.folder.child(FOLDER)
    listed = [folder.read_json(name) for name in folder.names()]
    return [
        Evaluated(
            **{
                **one,
                "scores": [TaskScore(**score) for score in one["scores"]],
                "base": [TaskScore(**score) for score in one["base"]],
            }
        )
        for one in listed
    ]


def _student(run: Run, wanted: str | None) -> tuple[str, Path, str]:
    """A trained student that writes: its name, its folder, and what it started from."""
    reader = RunReader(run)
    recipe = reader.loaded.recipe
    trained = {
        stage.name.removeprefix("train-"): stage
        for stage in reader.stages(TRAIN)
        if isinstance(recipe, TrainingRecipe)
        and recipe.students[stage.settings["student"]].family != "encoder"
    }
    if not trained:
        raise UseError(
            run.folder.location,
            "no student that writes is trained in it.",
            "lm-eval takes causal and seq2seq students: finish such a run first.",
        )
    name = wanted or next(iter(trained))
    if name not in trained:
        raise UseError(
            f"--student {name}", "there is none of this name.", f"There are: {', '.join(trained)}."
        )
    folder = reader.finished[f"train-{name}"].folder.child("student").location
    return name, model_folder(folder), trained[name].settings["section"]["model"]


def _check_installed() -> None:
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise UseError(
            "--harness", f"{error.name} is not installed.", "Install stillhouse[harness]."
        ) from None


def _judge(
    folder: Path, tasks: Sequence[str], files: Path | None, limit: int | None, batch_size: int
) -> list[TaskScore]:
    import torch

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if files is None else str(files))
    unknown = [task for task in tasks if not manager.match_tasks([task])]
    if unknown:
        raise UseError(
            f"--harness {','.join(tasks)}",
            f"lm-eval has no task '{unknown[0]}'.",
            "`lm-eval ls tasks` lists them; --tasks names a folder with others.",
        )
    gpu = torch.cuda.is_available()
    arguments = {
        "pretrained": str(folder),
        "device": "cuda" if gpu else "cpu",
        # A CPU computes in bfloat16 many times slower.
        "dtype": "auto" if gpu else "float32",
        "trust_remote_code": False,
    }
    try:
        found = simple_evaluate(
            model="hf",
            model_args=arguments,
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            batch_size=batch_size,
            log_samples=False,
        )
    except (OSError, ConnectionError, ValueError) as error:
        raise WorkError(
            f"--harness {','.join(tasks)}",
            f"lm-eval stopped: {(str(error).strip() or 'no message').splitlines()[0]}",
            "Its tasks read their data from a hub: fetch it into the cache first, or name tasks "
            "that read files with --tasks.",
        ) from error
    return _scores(found)


def _scores(found: dict[str, Any]) -> list[TaskScore]:
    counts = found.get("n-samples", {})
    scores = []
    for task, metrics in found["results"].items():
        for metric, value in metrics.items():
            name, comma, kind = metric.partition(",")
            if not comma or name.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{name}_stderr,{kind}")
            rows = counts.get(task, {}).get("effective")
            told = float(error) if isinstance(error, int | float) else None
            scores.append(TaskScore(task, metric, float(value), told, rows))
    return scores
