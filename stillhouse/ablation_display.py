"""What an ablation looks like on the terminal: a line for each variant, a column for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table

from core.errors import StillhouseError
from core.run import Manifest
from stillhouse.ablation_book import Measured
from stillhouse.ablation_plan import Cell
from stillhouse.clock import clock
from stillhouse.display import RunDisplay
from stillhouse.report.wording import money, percent, plural


@dataclass
class AblationDisplay(RunDisplay):
    """Shows which cells are done, what the one at work does, and how long the rest will take."""

    measured: Measured | None = None
    cell: Cell | None = None
    """The one at work."""
    _cells: list[Cell] = field(default_factory=list)
    _states: dict[tuple[str, int], str] = field(default_factory=dict)
    _left: dict[str, str] = field(default_factory=dict)
    """The work that is left: the stage's name, by its fingerprint; cells may share it."""
    _took: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of each finished piece of work, by the stage's name."""

    def begin_cells(self, cells: Sequence[Cell]) -> None:
        """These are to be finished."""
        self._cells = list(cells)
        self._states = {(cell.variant, cell.seed): "·" for cell in cells}
        self._left = {
            cell.plan.fingerprints[stage.name].whole: stage.name
            for cell in cells
            for stage in cell.left(cell.stages)
        }

    def finished(self, stage: str, manifest: Manifest) -> None:
        """A stage is done."""
        super().finished(stage, manifest)
        self._left.pop(manifest.fingerprint, None)
        self._took.setdefault(stage, []).append(self.lines[stage].seconds)

    def finished_cell(self, cell: Cell) -> None:
        """A cell is done."""
        assert self.measured is not None, "given from the start"
        self.measured.book().write(self.run)
        share = percent(self.measured.share(cell))
        self._states[cell.variant, cell.seed] = share
        self._plain(f"{cell.name}: {share} right; {self.outlook()}", at_once=True)

    def failed_cell(self, cell: Cell, error: StillhouseError) -> None:
        """A cell cannot be finished."""
        self._states[cell.variant, cell.seed] = "failed"
        self.warn(f"{cell.name}: {error.place}: {error.cause}")

    def outlook(self) -> str:
        """Cells left, and the time that they will take by the work so far."""
        left = [cell for cell in self._cells if self._states[cell.variant, cell.seed] == "·"]
        text = f"{plural(len(left), 'cell')} left"
        seconds = 0.0
        for stage in self._left.values():
            if stage in self._took:
                seconds += sum(self._took[stage]) / len(self._took[stage])
        if not left or not seconds:
            return text
        known = all(stage in self._took for stage in self._left.values())
        return f"{text}, {'about' if known else 'more than'} {clock(seconds)}"

    def table(self) -> Table:
        """The live picture."""
        spent = money(self._spent(), self.prices.currency)
        table = Table(box=None, pad_edge=False, caption_style="")
        table.add_column("variant")
        seeds = list(dict.fromkeys(seed for _, seed in self._states))
        for seed in seeds:
            table.add_column(f"seed {seed}", justify="right")
        at_work = (self.cell.variant, self.cell.seed) if self.cell else None
        for variant in dict.fromkeys(variant for variant, _ in self._states):
            states = [
                "…" if (variant, seed) == at_work and state == "·" else state
                for seed in seeds
                for state in [self._states.get((variant, seed), "")]
            ]
            table.add_row(variant, *states)
        table.caption = f"{self._at_work()}\n{self.outlook()}, cost so far {spent}"
        return table

    def _at_work(self) -> str:
        """What is being done now."""
        for name, line in self.lines.items():
            if self.cell is not None and line.state in ("starts", "runs"):
                told = self._describe(line) if line.progress else line.state
                return f"{self.cell.name}: {name}: {told}"
        return ""
