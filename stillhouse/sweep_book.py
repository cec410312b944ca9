"""What a run keeps of its sweep: the trials, what became of each, and the best of them.

The book is one small file, rewritten whenever a trial has an epoch more. A sweep that goes on reads
in it what need not be done again, and `run` reads in it with which values to go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from core.ledger import Entry, total
from core.prices import PriceBook
from core.recipe import LoadedRecipe, TrainingRecipe
from core.run import Run
from stillhouse.workflow import Plan, plan_run

BOOK = "sweep.json"
"""File of a run."""

State = Literal["waits", "runs", "finished", "stopped", "failed"]
"""`stopped`: by the scheduler, for good. What runs when the sweep is killed has to go on."""

Epoch = dict[str, Any]
"""A finished epoch of a training, as its history has it."""


@dataclass
class Trial:
    """One choice of values."""

    number: int
    """From 1."""
    values: dict[str, Any]
    """By dotted key of the recipe."""
    fingerprint: str
    """Of its training, with all that this is made from."""
    works: dict[str, str]
    """By stage, up to the training: what names the folder, and the entries in the ledger."""
    state: State = "waits"
    history: list[Epoch] = field(default_factory=list)
    """Its epochs so far."""
    error: str = ""
    """Why it failed."""
    device_seconds: float = 0.0
    """That its training took, in all attempts, start-up and idle time included."""
    money: float | None = None
    """What that cost; None where a price is unknown."""

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do; what has failed is tried again by the next command."""
        return self.state in ("finished", "stopped")

    def score(self, metric: str) -> float | None:
        """The metric of the epoch whose weights are kept, which has the lowest loss so far."""
        return score_of(self.history, metric)


def score_of(history: list[Epoch], metric: str) -> float | None:
    """The metric of the epoch with the lowest loss on held-out rows; None before the first."""
    if not history:
        return None
    best = min(history, key=lambda epoch: epoch["validation_loss"])
    found: float = best[metric]
    return found


@dataclass
class SweepBook:
    """All trials of a sweep."""

    student: str
    metric: str
    logarithmic: list[str]
    """Keys whose values are told by their powers of ten."""
    notes: list[str]
    """What a reader must know before comparing the trials."""
    trials: list[Trial]
    best: int | None = None
    """Number of the best trial, once the sweep is done."""

    @property
    def rising(self) -> bool:
        """Whether more is better."""
        return self.metric == "validation_accuracy"

    def ranked(self) -> list[Trial]:
        """The trials that made a student, the best first."""
        finished = [trial for trial in self.trials if trial.state == "finished"]

        def order(trial: Trial) -> float:
            score = trial.score(self.metric)
            assert score is not None, "a finished training has an epoch"
            return -score if self.rising else score

        return sorted(finished, key=order)  # of equal ones the first stays first

    def take_over(self, before: SweepBook | None) -> None:
        """Keep what an earlier attempt found of the same trials."""
        if before is None:
            return
        known = {trial.fingerprint: trial for trial in before.trials}
        for trial in self.trials:
            old = known.get(trial.fingerprint)
            if old is not None:
                trial.history = old.history
                trial.state = old.state if old.settled else "waits"
            if old is not None and old.number == before.best:
                self.best = trial.number

    def account(self, entries: Sequence[Entry], prices: PriceBook) -> None:
        """Put what each training took, by the ledger's entries, into its trial."""
        for trial in self.trials:
            work = trial.works[f"train-{self.student}"]
            summed = total([entry for entry in entries if entry.work == work], prices)
            trial.device_seconds = summed.entry.device_seconds
            trial.money = summed.money

    def write(self, run: Run) -> None:
        """Put the book into a run."""
        run.folder.write_json(BOOK, asdict(self))


def read_book(run: Run) -> SweepBook | None:
    """The book of a run's sweep, or None where it has none."""
    if not run.folder.has(BOOK):
        return None
    content = run.folder.read_json(BOOK)
    return SweepBook(**{**content, "trials": [Trial(**trial) for trial in content["trials"]]})


class Load(Protocol):
    """Reads the recipe of a command with other values."""

    def __call__(
        self, values: Mapping[str, Any], variant: Mapping[str, Any] | None = None
    ) -> LoadedRecipe:
        """The recipe with a trial's values, and what a variant of an ablation changes of that.

        Args:
            values: By dotted key; `--set` goes over them.
            variant: By dotted key, over all else.
        """
        ...


def promoted(plan: Plan, load: Load) -> Plan:
    """The plan with the values of the best trial, where the run has a sweep of this very recipe.

    It is one where those values lead to the student that the best trial trained: a recipe that
    makes another student, or that is not swept any more, stays as it is written.
    """
    return _promotion(plan, load)[0]


def best_values(plan: Plan, load: Load) -> dict[str, Any]:
    """Those values, by dotted key; none where the recipe stays as it is written."""
    return _promotion(plan, load)[1]


def _promotion(plan: Plan, load: Load) -> tuple[Plan, dict[str, Any]]:
    recipe = plan.loaded.recipe
    if not isinstance(recipe, TrainingRecipe) or recipe.sweep is None:
        return plan, {}
    book = read_book(plan.run)
    if book is None or book.best is None:
        return plan, {}
    best = book.trials[book.best - 1]
    if set(best.values) != set(recipe.sweep.space):
        return plan, {}
    found = plan_run(load(best.values), plan.run)
    trained = found.fingerprints.get(f"train-{book.student}")
    if trained is None or trained.whole != best.fingerprint:
        return plan, {}
    return found, best.values
