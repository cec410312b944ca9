"""Runs an ablation: the cells that are left, and what all of them came to.

First the rows of all cells are made, so that an engine is started once and given back before the
trainings; then the cells are finished one by one. An ablation that was stopped or killed goes on by
the same command: a cell whose answers are there is not begun again.
"""

from __future__ import annotations

from contextlib import ExitStack

from rich.console import Console

from core.errors import StillhouseError, WorkError
from core.ledger import Ledger
from core.prices import recipe_prices
from core.recipe_teachers import AnyTeacher
from stillhouse.ablation_book import Measured
from stillhouse.ablation_display import AblationDisplay
from stillhouse.ablation_plan import AblationPlan, Cell
from stillhouse.ablation_table import cells_done, claims_table, variant_table
from stillhouse.engines import Engines
from stillhouse.memory_table import refuse_what_cannot_fit
from stillhouse.ray_session import DRIVER_LOG, ray_session
from stillhouse.spending import Spending
from stillhouse.stages import Stage, needs_ray
from stillhouse.workflow import Plan, Workflow, lock, logs_of, stop_where_over, write_state


def show_ablation(plan: AblationPlan, most: int | None = None) -> None:
    """Run an ablation with a live display, and end with its table.

    Args:
        plan: What to run.
        most: Cells to finish at most; all that are left if absent.

    Raises:
        StillhouseError: What stopped it, or what a cell failed of; all that was committed stays.
    """
    run = plan.base.run
    measured = Measured(plan)
    wanted = [cell for cell in plan.cells if not cell.done][:most]
    for cell in wanted:
        refuse_what_cannot_fit(cell.plan, cell.stages)
    failed: dict[str, StillhouseError] = {}
    with lock(run):
        write_state(plan.base)
        measured.book().write(run)
        if wanted:
            prices = recipe_prices(plan.base.loaded)
            display = AblationDisplay(prices, run, logs_of(run) / DRIVER_LOG, measured=measured)
            with display.showing():
                failed = _Cells(wanted, display).run()
    found = measured.book().found
    out = Console()
    if not wanted:
        out.print("Everything was done already.\n")
    out.print(variant_table(found))
    for note in found.notes:
        out.print(note, style="yellow")
    if found.claims:
        out.print("", claims_table(found))
    out.print(f"\n{cells_done(found)}", highlight=False)
    from stillhouse.reporting import write_report  # what draws the page takes a second to load

    path, _ = write_report(run)
    out.print(f"Report: {path}", highlight=False, soft_wrap=True)
    for name, error in failed.items():
        raise WorkError(
            f"ablate.variants, {name}",
            f"{len(failed)} of {len(wanted)} cells failed; this one of {error.place}: "
            f"{error.cause}",
            f"{error.mend} The same command tries again.",
        )


class _Cells:
    """Cells at work."""

    def __init__(self, cells: list[Cell], display: AblationDisplay) -> None:
        self._cells = cells
        self._display = display
        self._engines = Engines()
        self._failed: dict[str, StillhouseError] = {}
        self._broken: dict[str, StillhouseError] = {}
        """What a stage has failed of, by the stage's fingerprint: it is not tried twice."""

    def run(self) -> dict[str, StillhouseError]:
        """Finish the cells.

        Returns:
            What cells failed of, by their names.

        Raises:
            StillhouseError: The budget is used up.
        """
        self._display.begin_cells(self._cells)
        first = self._cells[0].plan
        with ExitStack() as session:
            if any(self._needs_ray(cell) for cell in self._cells):
                logs = logs_of(first.run)
                session.enter_context(ray_session(first.loaded.recipe, logs, self._display.warn))
            session.callback(self._engines.close_all_but, {})
            teachers = [_teachers(cell) for cell in self._cells]
            for number, cell in enumerate(self._cells):
                later = {k: v for some in reversed(teachers[number + 1 :]) for k, v in some.items()}
                self._do(cell, cell.asking, later)
            for cell in self._cells:
                self._do(cell, cell.stages, {})
                if cell.done:
                    self._display.finished_cell(cell)
        return self._failed

    def _needs_ray(self, cell: Cell) -> bool:
        return any(needs_ray(stage, cell.plan.loaded.recipe) for stage in cell.left(cell.stages))

    def _do(self, cell: Cell, stages: list[Stage], later: dict[str, AnyTeacher]) -> None:
        """Do some stages of a cell, unless one of them is known to fail."""
        left = cell.left(stages)
        known = (self._broken.get(cell.plan.fingerprints[stage.name].whole) for stage in left)
        error = next((error for error in known if error is not None), None)
        if error is None:
            error = self._try(cell, left, later)
        if error is not None and cell.name not in self._failed:
            self._failed[cell.name] = error
            self._display.failed_cell(cell, error)

    def _try(
        self, cell: Cell, stages: list[Stage], later: dict[str, AnyTeacher]
    ) -> StillhouseError | None:
        """Do some stages of a cell; what they failed of, if they did."""
        self._display.cell = cell
        plan, display = cell.plan, self._display
        try:
            Workflow(
                plan, display, stages, has_ray=True, engines=self._engines, later=later
            ).run_stages()
        except StillhouseError as error:
            _stop_where_over(plan)  # a budget ends all of them
            self._broken[plan.fingerprints[cell.left(stages)[0].name].whole] = error
            return error
        return None


def _teachers(cell: Cell) -> dict[str, AnyTeacher]:
    """The teachers that a cell's stages have yet to ask."""
    known = cell.plan.loaded.recipe.teachers
    return {n: known[n] for stage in cell.left(cell.asking) for n in stage.teachers}


def _stop_where_over(plan: Plan) -> None:
    recipe, prices = plan.loaded.recipe, recipe_prices(plan.loaded)
    stop_where_over(Spending(Ledger(plan.run.ledger), recipe.budget, prices))
