"""What a run looks like on the terminal: one line a stage, with rate, cost and time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from core.ledger import Ledger, total
from core.prices import PriceBook, recipe_prices
from core.run import Manifest, Run, StageFolder
from core.stage import LaneProgress, Progress
from stillhouse.ablation_book import read_ablation
from stillhouse.ablation_table import cells_done
from stillhouse.clock import clock
from stillhouse.cluster_table import cluster_table
from stillhouse.memory_table import memory_tables, refuse_what_cannot_fit
from stillhouse.ray_session import DRIVER_LOG
from stillhouse.report.wording import count, money
from stillhouse.sweep_book import read_book
from stillhouse.sweep_table import progress_of
from stillhouse.workflow import Plan, Workflow, logs_of, prices_of

PLAIN_SECONDS = 10.0
"""Seconds between two lines about a stage where the output is no terminal."""


@contextmanager
def _streams_to(log: Path) -> Iterator[TextIO]:
    """Send standard output and error to a file, and give a stream to the terminal instead."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with log.open("a") as stream, os.fdopen(os.dup(2), "w") as terminal:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        try:
            yield terminal
        finally:
            # A log on a full disk must not hide what happened.
            for own in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    own.flush()
            for number, saved in enumerate(kept, start=1):
                os.dup2(saved, number)
                os.close(saved)


@dataclass
class _Line:
    """What is known of a stage."""

    state: str = "waits"
    rows: str = ""
    began: float = 0.0
    progress: Progress | None = None
    moves: bool = False
    """Whether more rows are done than at first."""
    counted_from: float = 0.0
    """When that began: what an engine takes to start tells nothing of its rate."""
    done_before: int = 0
    tokens_before: int = 0
    seconds: float = 0.0


@dataclass
class RunDisplay:
    """Shows a run live on a terminal, and as plain lines elsewhere."""

    prices: PriceBook
    run: Run
    log: Path
    """File for what other libraries print in this process."""
    console: Console = field(default_factory=lambda: Console(stderr=True))
    lines: dict[str, _Line] = field(default_factory=dict)
    _printed: float = 0.0

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Keep the display on the screen while a block runs."""
        with ExitStack() as stack:
            # Libraries write to the process's own streams, some of them from C++.
            self.console.file = stack.enter_context(_streams_to(self.log))
            if self.console.is_terminal:
                stack.enter_context(self._live())
            yield

    def _live(self) -> Live:
        return Live(
            get_renderable=self.table,
            console=self.console,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def begin(self, stages: list[str]) -> None:
        """The run has these stages."""
        self.lines = {stage: _Line() for stage in stages}

    def found(self, stage: str, manifest: Manifest) -> None:
        """A stage was done already."""
        self.lines[stage] = _Line("was done", _rows(manifest))

    def started(self, stage: str) -> None:
        """A stage begins."""
        self.lines[stage] = _Line("starts", began=time.monotonic())
        self._plain(f"{stage} starts", at_once=True)

    def progress(self, stage: str, progress: Progress) -> None:
        """How far a stage is."""
        line = self.lines[stage]
        if line.progress is None:
            line.began = time.monotonic()
        if not line.moves:
            line.moves = line.progress is not None and progress.done > line.done_before
            line.counted_from = time.monotonic()
            line.done_before = progress.done
            line.tokens_before = sum(entry.tokens for entry in progress.used)
        line.state = "runs"
        line.progress = progress
        self._plain(f"{stage}: {self._describe(line)}")

    def finished(self, stage: str, manifest: Manifest) -> None:
        """A stage is done."""
        line = self.lines[stage]
        line.state, line.rows, line.progress = "done", _rows(manifest), None
        line.seconds = time.monotonic() - line.began
        self._plain(f"{stage} is done: {line.rows}", at_once=True)

    def warn(self, text: str) -> None:
        """Something went wrong that the outcome does not depend on."""
        self.console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def table(self) -> Table:
        """The live picture."""
        spent = money(self._spent(), self.prices.currency)
        table = Table(box=None, pad_edge=False, caption=f"cost so far {spent}", caption_style="")
        table.add_column("stage")
        table.add_column("")
        table.add_column("")
        marks = {"waits": "·", "starts": "…", "runs": "…", "done": "✓", "was done": "✓"}
        for name, line in self.lines.items():
            style = {"waits": "dim", "was done": "dim", "done": ""}.get(line.state, "bold")
            text = self._describe(line) if line.progress else line.rows or line.state
            took = clock(line.seconds) if line.state == "done" else ""
            if line.state in ("starts", "runs"):
                took = clock(time.monotonic() - line.began)
            table.add_row(f"{marks[line.state]} {name}", text, took, style=style)
            if line.progress and len(line.progress.lanes) > 1:
                for lane in line.progress.lanes:
                    table.add_row(f"    {lane.teacher}", self._describe_lane(lane), style="dim")
        return table

    def _describe(self, line: _Line) -> str:
        """Rows done of all, rows a second, tokens a second, cost, time left."""
        progress = line.progress
        assert progress is not None
        seconds = max(time.monotonic() - line.counted_from, 1e-9)
        rate = (progress.done - line.done_before) / seconds
        parts = [f"{count(progress.done)} of {count(progress.total)} {progress.unit}"]
        if rate > 0:
            parts.append(f"{rate:.1f} {progress.unit}/s")
        used = total(progress.used, self.prices)
        if used.entry.tokens > line.tokens_before:
            tokens = (used.entry.tokens - line.tokens_before) / seconds
            parts.append(f"{tokens:,.0f} tokens/s")
        if progress.used:
            parts.append(f"cost {money(used.money, self.prices.currency)}")
        if rate > 0 and progress.done < progress.total:
            parts.append(f"{clock((progress.total - progress.done) / rate)} left")
        return ", ".join(parts)

    def _describe_lane(self, lane: LaneProgress) -> str:
        spent = total([lane.used], self.prices).money
        rows = f"{count(lane.done)} of {count(lane.total)} rows"
        tokens = f"{count(lane.used.tokens)} tokens"
        return f"{rows}, {tokens}, cost {money(spent, self.prices.currency)}"

    def _spent(self) -> float | None:
        return total(Ledger(self.run.ledger).entries(), self.prices).money

    def _plain(self, text: str, *, at_once: bool = False) -> None:
        """Print a line where there is no terminal to draw on."""
        now = time.monotonic()
        if self.console.is_terminal or (not at_once and now - self._printed < PLAIN_SECONDS):
            return
        self._printed = now
        self.console.print(text, highlight=False, soft_wrap=True)


def _rows(manifest: Manifest) -> str:
    """Rows kept and rejected, in words."""
    text = f"{count(manifest.rows)} rows"
    if manifest.rejected:
        reasons = ", ".join(f"{number} {reason}" for reason, number in manifest.rejected.items())
        text += f"; rejected {count(sum(manifest.rejected.values()))} ({reasons})"
    return text


def show_run(plan: Plan, until: str | None = None) -> None:
    """Run a plan with a live display, and end with the summary.

    Args:
        plan: What to run.
        until: Name of the stage to stop after; all of them if absent.

    Raises:
        StillhouseError: What stopped the run.
    """
    stages = plan.until(until) if until else plan.stages
    refuse_what_cannot_fit(plan, stages)
    prices = recipe_prices(plan.loaded)
    display = RunDisplay(prices, plan.run, logs_of(plan.run) / DRIVER_LOG)
    nothing_to_do = all(plan.done(stage.name) for stage in stages)
    with display.showing():
        Workflow(plan, display, stages).run()
    out = Console()
    if nothing_to_do:
        out.print("Everything was done already.\n")
    from stillhouse.reporting import write_report  # what draws the page takes a second to load

    path, summary = write_report(plan.run)
    out.print(summary)
    out.print(f"Report: {path}", highlight=False, soft_wrap=True)


def show_plan(plan: Plan) -> None:
    """Print what a run would do, and where one was stopped, what the rest of it will take.

    Raises:
        UseError: A student's training cannot fit into the memory of its devices.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "state", "committed rows", "asks"):
        table.add_column(column)
    for stage in plan.stages:
        manifest = plan.done(stage.name)
        folder = plan.folder(stage.name)
        rows = manifest.rows if manifest else _committed_rows(folder)
        state = "done" if manifest else ("partly done" if rows else "to do")
        table.add_row(stage.name, state, count(rows) if rows else "", ", ".join(stage.teachers))
    out = Console()
    out.print(table)
    if any(stage.asks and _begun(plan, stage.name) for stage in plan.stages):
        from stillhouse.estimate_table import estimate_table
        from stillhouse.sampling import estimate

        found = estimate(plan)
        if found.lines:
            out.print("\nBy the rows so far:\n", estimate_table(found, plan))
    pods = cluster_table(plan.loaded)
    if pods is not None:
        out.print("\nOn Kubernetes:\n", pods, highlight=False)
    for memory in memory_tables(plan):
        out.print(memory, highlight=False)


def _begun(plan: Plan, stage: str) -> bool:
    return plan.done(stage) is None and bool(plan.folder(stage).committed_shards())


def show_sample(plan: Plan, rows: int) -> None:
    """Ask the teachers about a sample of a plan's rows, and print what all of them will take.

    Args:
        plan: Of all rows.
        rows: Rows for each teacher of each stage.

    Raises:
        StillhouseError: What stopped the sample; what was committed stays.
    """
    from stillhouse.estimate_table import estimate_table
    from stillhouse.sampling import estimate, sample_plan

    sample = sample_plan(plan, rows)
    display = RunDisplay(recipe_prices(plan.loaded), plan.run, logs_of(plan.run) / DRIVER_LOG)
    workflow = Workflow(sample, display, sample.stages)
    with display.showing():
        workflow.run()
    Console().print(estimate_table(estimate(plan, sample), plan, workflow.attempt))


def _committed_rows(folder: StageFolder) -> int:
    return len(folder.different_rows(folder.committed_shards()))


def show_status(run: Run) -> None:
    """Print how far a run is, and what it has cost."""
    state = run.state() or {}
    prices = prices_of(run)
    entries = Ledger(run.ledger).entries()
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "state", "rows", "cost"):
        table.add_column(column, justify="right" if column == "cost" else "left")
    finished = run.finished_stages()
    for name, work in state["stages"].items():
        manifest = finished[name].manifest() if name in finished else None
        cost = total([entry for entry in entries if entry.stage == name], prices).money
        rows = _rows(manifest) if manifest else f"{_committed_rows(run.stage(name, work))} rows"
        used = any(entry.stage == name for entry in entries)
        table.add_row(
            name,
            "done" if manifest else "not done",
            rows,
            money(cost, prices.currency) if used else "",
        )
    console = Console()
    console.print(table)
    book = read_book(run)
    if book is not None:
        console.print(f"Sweep: {progress_of(book)}", highlight=False)
    ablation = read_ablation(run)
    if ablation is not None:
        console.print(f"Ablation: {cells_done(ablation.found)}", highlight=False)
    console.print(f"Cost so far: {money(total(entries, prices).money, prices.currency)}")
