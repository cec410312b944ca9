"""How a recipe's run on a cluster is, and what it has cost: read from the run's own store."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from cluster.sizes import cluster_of
from cluster.workloads import run_location
from core.errors import UseError
from core.ledger import Entry, Ledger, total
from core.prices import PriceBook
from core.recipe import LoadedRecipe
from core.run import Folder, Run
from stillhouse.cluster_job import ClusterJob
from stillhouse.display import show_status
from stillhouse.report.wording import count, money
from stillhouse.workflow import open_run, prices_of


def show_state(job: ClusterJob, folder: str | None) -> None:
    """Print how a workload is, and how far its run is.

    Args:
        job: The workload.
        folder: Where its run can be read from here; `cluster.storage` if absent.

    Raises:
        StillhouseError: The cluster does not tell, or the run cannot be read.
    """
    out = Console()
    state = job.state()
    out.print(f"{state.name}: {state.state or 'not there'}", highlight=False)
    if state.message:
        out.print(f"  {state.message}", highlight=False, markup=False)
    if state.pods:
        table = Table(box=None, pad_edge=False)
        for column in ("pods of", "", "number"):
            table.add_column(column)
        for (component, phase), number in sorted(state.pods.items()):
            table.add_row(component, phase, str(number))
        out.print(table)
    if folder is None and cluster_of(job.loaded).storage is None:
        out.print("Its run is on a volume of the cluster; --run names it where it is mounted here.")
        return
    run = Run(_place(job.loaded, folder))
    if run.state() is None:
        out.print("Its run has not begun.")
    else:
        show_status(run)


def show_cost(loaded: LoadedRecipe, folder: str | None) -> None:
    """Print what a run has used of each kind of device, and what that costs.

    Args:
        loaded: The recipe.
        folder: As of `show_state`.

    Raises:
        UseError: The run is not there, or on a volume.
    """
    run = open_run(_place(loaded, folder).location)
    prices = prices_of(run)
    entries = Ledger(run.ledger).entries()
    table = Table(box=None, pad_edge=False)
    table.add_column("device")
    for column in ("hours", "start-up", "useful", "idle", "rows", "money"):
        table.add_column(column, justify="right")
    for device in sorted({entry.device for entry in entries}):
        _add(table, device or "(by the token)", [e for e in entries if e.device == device], prices)
    out = Console()
    out.print(table)
    whole = total(entries, prices)
    out.print(f"Cost so far: {money(whole.money, prices.currency)}", highlight=False)
    if whole.entry.rows and whole.money is not None:
        each = money(1000 * whole.money / whole.entry.rows, prices.currency)
        out.print(f"A thousand rows of the stages cost {each}.", highlight=False)


def _add(table: Table, name: str, entries: list[Entry], prices: PriceBook) -> None:
    found = total(entries, prices)
    used = found.entry
    seconds = (used.device_seconds, used.startup_seconds, used.useful_seconds, used.idle_seconds)
    hours = [f"{one / 3600:.2f}" for one in seconds]
    table.add_row(name, *hours, count(used.rows), money(found.money, prices.currency))


def _place(loaded: LoadedRecipe, folder: str | None) -> Folder:
    if folder is not None:
        return Folder(folder)
    if cluster_of(loaded).storage is None:
        raise UseError(
            f"the run of {loaded.recipe.name}",
            "it is on a volume of the cluster, which is not here.",
            "Name it by --run where the volume is mounted, or set cluster.storage.",
        )
    return Folder(run_location(loaded))
