"""The trials of a sweep under Ray Tune: who runs when, what is told of it, and who is stopped.

Tune decides; the work is the workflow's own. A trial is an actor that runs one training stage in
the run's folder, and gives Tune an epoch at a time. What Tune itself writes is thrown away: the
stages and the sweep's book hold all that a sweep goes on from.
"""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# No metrics files of Tune's own, and no epoch is asked of a trial that failed before its first.
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from core.errors import StillhouseError
from core.run import Folder, Manifest, Run
from core.stage import Progress
from stillhouse.ray_session import local_resources, runs_here
from stillhouse.stages import resources
from stillhouse.sweep_book import Epoch, SweepBook, score_of
from stillhouse.sweep_plan import SweepPlan
from stillhouse.workflow import Plan, Workflow

STOP_SECONDS = 90.0
"""How long trials that are to stop may take: longer than their trainings may."""

PLACE_SHARE = 0.001
"""Of the driver's node, which every trial holds, and nothing else: its workers hold the devices."""


@dataclass(frozen=True)
class Task:
    """What the actor of a trial is given."""

    plan: Plan
    training: str
    metric: str
    stop: Folder
    """Where a file with the name `STOP` ends all trials."""
    driver_folder: Path
    """Where the command was started: a recipe may name models from there."""


STOP = "stop"


class _Stopped(Exception):  # noqa: N818 - no error
    """The trial is to end before its training has."""


class SweepTrial(tune.Trainable):  # type: ignore[misc]
    """A trial: the workflow in a thread, whose epochs are handed to Tune one by one."""

    def setup(self, config: dict[str, Any], tasks: dict[int, Task]) -> None:
        """Begin; `config` has the trial's number."""
        self._task = tasks[config["number"]]
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()
        self._stop = threading.Event()
        os.chdir(self._task.driver_folder)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def step(self) -> dict[str, Any]:
        """Wait for the next epoch, or for the end."""
        return self._results.get()

    def cleanup(self) -> None:
        """End the training where it still goes on, and its workers with it."""
        self._stop.set()
        self._thread.join(STOP_SECONDS)

    def _work(self) -> None:
        task = self._task
        teller = _Teller(task, self._results, self._stop)
        training = task.plan.until(task.training)[-1]
        try:
            teller.look()
            Workflow(task.plan, teller, [training], has_ray=True).run_stages()
        except _Stopped:
            self._end("waits")
        except StillhouseError as error:
            self._end("failed", " ".join((error.place + ":", error.cause, error.mend)))
        except Exception as error:  # of ours or of a library: the other trials go on
            self._end("failed", f"{type(error).__name__}: {error}")

    def _end(self, state: str, error: str = "") -> None:
        self._results.put({"state": state, "error": error, "done": True})


class _Teller:
    """A trial's display: tells Tune, where others tell people."""

    def __init__(
        self, task: Task, results: queue.Queue[dict[str, Any]], stop: threading.Event
    ) -> None:
        self._task = task
        self._results = results
        self._stop = stop
        self._told = 0

    def look(self) -> None:
        """End the trial if Tune or the driver says so."""
        if self._stop.is_set() or self._task.stop.has(STOP):
            raise _Stopped

    def begin(self, stages: list[str]) -> None:
        """Nothing to tell yet."""

    def started(self, stage: str) -> None:
        """Nothing to tell yet."""

    def warn(self, text: str) -> None:
        """Nobody reads it here."""

    def found(self, stage: str, manifest: Manifest) -> None:
        """The training was done already."""
        self.finished(stage, manifest)

    def progress(self, stage: str, progress: Progress) -> None:  # noqa: ARG002
        """Tell of the epochs behind which the training has gone on.

        Not of the last one: a trial that has trained to its end shall still make its student.
        """
        self.look()
        for epoch in progress.epochs[self._told :]:
            if progress.done > epoch["step"]:
                self._told += 1
                self._results.put(self._result(progress.epochs[: self._told]))

    def finished(self, stage: str, manifest: Manifest) -> None:  # noqa: ARG002
        """The student is there."""
        result = self._result(tuple(manifest.facts["history"]))
        self._results.put({**result, "state": "finished", "done": True})

    def _result(self, history: tuple[Epoch, ...]) -> dict[str, Any]:
        epochs = list(history)
        score = score_of(epochs, self._task.metric)
        return {"epoch": len(epochs), "score": score, "history": epochs, "state": "runs"}


class _InOrder(Searcher):  # type: ignore[misc]
    """Hands out the trials that are left, one after the other."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__()
        self._numbers = list(numbers)
        self.halted = False
        """Whether no more shall begin."""

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        """The next one's number."""
        if self.halted or not self._numbers:
            return Searcher.FINISHED
        return {"number": self._numbers.pop(0)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing follows from a result: the values were drawn beforehand."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the book has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing either."""


class _Clerk(tune.Callback):  # type: ignore[misc]
    """Writes what becomes of the trials into the book; Tune calls it in its own thread."""

    def __init__(self, book: SweepBook, run: Run) -> None:
        self._book = book
        self._run = run

    def on_trial_start(self, trial: Any, **_: Any) -> None:
        self._of(trial).state = "runs"

    def on_trial_result(self, trial: Any, result: dict[str, Any], **_: Any) -> None:
        ours = self._of(trial)
        ours.state = result["state"]
        ours.history = result.get("history", ours.history)
        ours.error = result.get("error", "")
        self._book.write(self._run)

    def on_trial_complete(self, trial: Any, **_: Any) -> None:
        ours = self._of(trial)
        if ours.state == "runs":  # the scheduler's word; it says nothing itself
            ours.state = "stopped"
            self._book.write(self._run)

    def on_trial_error(self, trial: Any, **_: Any) -> None:
        ours = self._of(trial)
        ours.state, ours.error = "failed", "The process that ran it died; logs/ray tells more."
        self._book.write(self._run)

    def _of(self, trial: Any) -> Any:
        return self._book.trials[trial.config["number"] - 1]


class Trials:
    """The trials that are left, at work."""

    def __init__(self, plan: SweepPlan) -> None:
        """Start them, in a thread; Ray must be connected."""
        numbers = [trial.number for trial in plan.book.trials if not trial.settled]
        run, storage = plan.base.run, plan.base.run.folder.child("sweep")
        storage.remove()  # of an attempt that was killed
        tasks = {
            number: Task(plan.plans[number], plan.training, plan.sweep.metric, storage, Path.cwd())
            for number in numbers
        }
        self._storage = storage
        self._order = _InOrder(numbers)
        self.outcome: Future[None] = Future()
        """Done when no trial is left."""
        trainable = tune.with_parameters(SweepTrial, tasks=tasks)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"CPU": 0, _this_node(): PLACE_SHARE}),
            tune_config=tune.TuneConfig(
                search_alg=self._order,
                scheduler=scheduler(plan),
                num_samples=len(numbers),
                max_concurrent_trials=trials_at_once(plan, numbers),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=storage.location,
                callbacks=[_Clerk(plan.book, run)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )

        def fit() -> None:
            try:
                tuner.fit()
                self.outcome.set_result(None)
            except BaseException as error:  # handed to whoever asks for the result
                self.outcome.set_exception(error)

        # Not on the main thread, where Tune would keep the handling of Ctrl-C for itself.
        threading.Thread(target=fit, daemon=True, name="sweep").start()

    def stop(self) -> None:
        """Have the trainings write a checkpoint and end, and begin no other."""
        self._order.halted = True
        self._storage.write(STOP, b"")

    def close(self) -> None:
        """Throw away what Tune wrote."""
        self._storage.remove()


def scheduler(plan: SweepPlan) -> TrialScheduler:
    """Who decides which trials are stopped.

    ASHA is told first what the trials of earlier attempts have reached, as if they had just done
    so. A trial that goes on tells its epochs again, and is judged at each rung by what is known
    now: a kill loses no comparison, and can only make a later one stricter.
    """
    sweep = plan.sweep
    if sweep.scheduler == "none":
        return FIFOScheduler()
    most = max(plan.student_of(number).train.epochs for number in plan.plans)
    asha = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="score",
        mode="max" if plan.book.rising else "min",
        max_t=max(most, sweep.grace_epochs),
        grace_period=sweep.grace_epochs,
        reduction_factor=sweep.reduction_factor,
        stop_last_trials=False,
    )
    for trial in plan.book.trials:
        if trial.settled:
            earlier: Any = SimpleNamespace(trial_id=f"earlier-{trial.number}")
            asha.on_trial_add(None, earlier)
            for epoch in range(1, len(trial.history) + 1):
                score = score_of(trial.history[:epoch], plan.sweep.metric)
                asha.on_trial_result(None, earlier, {"epoch": epoch, "score": score})
    return asha


def trials_at_once(plan: SweepPlan, numbers: list[int]) -> int:
    """How many trials can train side by side, so that none of them waits for another's workers.

    On this machine its real cores count: Ray is told of more than there are.
    """
    there = local_resources()
    if runs_here():
        there["CPU"] = min(there["CPU"], os.cpu_count() or 1)
    fits = plan.sweep.max_concurrent or len(numbers)
    for number in numbers:
        train = plan.student_of(number).train
        for kind, amount in resources(train.device, train.worker_bounds.max).items():
            if amount:
                fits = min(fits, int(there[kind] // amount))
    # Where not even one fits beside the others, one alone may: its stage says what is missing.
    return max(1, fits)


def _this_node() -> str:
    """The resource that only the driver's node has: the recipe's files and models are there."""
    here = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here)
    names: list[str] = list(node["Resources"])
    return next(n for n in names if n.startswith("node:") and not n.startswith("node:__"))
