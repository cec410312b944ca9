"""Runs a sweep: what its trials have in common, the trials, and the best one into the run.

A sweep that was stopped or killed goes on by the same command. Trials that are done are not begun
again; those that were at work go on from their checkpoints, as every training does.
"""

from __future__ import annotations

import time
from concurrent.futures import wait

from rich.console import Console

from core.errors import WorkError
from core.ledger import Ledger
from core.prices import recipe_prices
from stillhouse.memory_table import refuse_what_cannot_fit
from stillhouse.ray_session import DRIVER_LOG, ray_session
from stillhouse.report.sweep import value_in_words
from stillhouse.spending import Spending
from stillhouse.sweep_book import Load, promoted
from stillhouse.sweep_display import SweepDisplay
from stillhouse.sweep_plan import SweepPlan
from stillhouse.sweep_table import progress_of, trial_table
from stillhouse.workflow import Workflow, lock, logs_of, stop_where_over, write_state

LOOK_SECONDS = 1.0
"""Between two looks at the trials."""

BUDGET_SECONDS = 5.0
"""Between two looks at the budget, which read the whole ledger."""


def show_sweep(plan: SweepPlan, load: Load) -> None:
    """Run a sweep with a live display, and end with its trials and the best.

    Args:
        plan: What to run.
        load: The recipe with other values.

    Raises:
        StillhouseError: What stopped it; all that was committed stays.
    """
    run, prices = plan.base.run, recipe_prices(plan.base.loaded)
    display = SweepDisplay(prices, run, logs_of(run) / DRIVER_LOG)
    left = [trial for trial in plan.book.trials if not trial.settled]
    for trial in left:
        laid_out = plan.plans[trial.number]
        refuse_what_cannot_fit(laid_out, laid_out.until(plan.training)[-1:])
    with lock(run):
        write_state(plan.base)
        plan.book.write(run)
        if left:
            with display.showing():
                _prepare(plan, display)
                display.book = plan.book
                _run_trials(plan, display)
        _clear(plan)
        plan.book.account(Ledger(run.ledger).entries(), prices)
        _promote(plan, load)
    out = Console()
    if not left:
        out.print("Everything was done already.\n")
    out.print(trial_table(plan.book))
    for note in plan.book.notes:
        out.print(note, style="yellow")
    best = plan.book.ranked()[0]
    out.print(f"\n{progress_of(plan.book)}")
    for key, value in best.values.items():
        out.print(f"  {key}={value_in_words(value)}", highlight=False)
    out.print("`stillhouse run` with the same recipe goes on with these values.", highlight=False)
    from stillhouse.reporting import write_report  # what draws the page takes a second to load

    path, _ = write_report(run)
    out.print(f"Report: {path}", highlight=False, soft_wrap=True)


def _prepare(plan: SweepPlan, display: SweepDisplay) -> None:
    """Make the training rows of the trials that are left, one trial after the other.

    So no two of them ever do the same work at the same time, and stages that they have in common
    are done once: the second trial finds them.
    """
    for trial in plan.book.trials:
        if not trial.settled and not plan.prepared(trial.number):
            stages = plan.before_training(trial.number)
            Workflow(plan.plans[trial.number], display, stages).run_stages()


def _run_trials(plan: SweepPlan, display: SweepDisplay) -> None:
    from stillhouse.sweep_trials import STOP_SECONDS, Trials  # loads Ray

    run, recipe = plan.base.run, plan.base.loaded.recipe
    prices = recipe_prices(plan.base.loaded)
    stop_where_over(Spending(Ledger(run.ledger), recipe.budget, prices))
    with ray_session(recipe, logs_of(run), display.warn):
        trials = Trials(plan)
        judged = time.monotonic()
        try:
            while not trials.outcome.done():
                wait([trials.outcome], LOOK_SECONDS)
                display.look()
                if time.monotonic() - judged >= BUDGET_SECONDS:
                    # Each trial sees what itself spends; together they are seen here alone.
                    stop_where_over(Spending(Ledger(run.ledger), recipe.budget, prices))
                    judged = time.monotonic()
            trials.outcome.result()
            if not all(trial.settled for trial in plan.book.trials):
                stop_where_over(Spending(Ledger(run.ledger), recipe.budget, prices))
        except BaseException:  # such as Ctrl-C, or the budget
            trials.stop()
            wait([trials.outcome], STOP_SECONDS)
            raise
        finally:
            trials.close()


def _clear(plan: SweepPlan) -> None:
    """Delete what stopped trainings left: nothing goes on from there, and the book tells of it."""
    for trial in plan.book.trials:
        if trial.state == "stopped":
            plan.plans[trial.number].folder(plan.training).folder.remove()


def _promote(plan: SweepPlan, load: Load) -> None:
    """Make the recipe with the best trial's values the run's own.

    Raises:
        WorkError: No trial made a student.
    """
    book, run = plan.book, plan.base.run
    ranked = book.ranked()
    book.best = ranked[0].number if ranked else None
    book.write(run)
    if not ranked:
        raise WorkError(
            "sweep",
            f"no trial made a student. Trial 1: {book.trials[0].error}",
            "Mend the space or the recipe, and run the same command again.",
        )
    write_state(promoted(plan.base, load))
