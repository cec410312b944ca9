"""A search for a prompt as people read it on a terminal."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from core.run import Run
from stillhouse.report.prompt_search import PromptSearch
from stillhouse.report.wording import between, count, percent, plural, signed_points


def print_search(run: Run) -> None:
    """Show the search of a run."""
    from stillhouse.gather_prompt_search import search_of
    from stillhouse.run_reader import RunReader

    found = search_of(RunReader(run))
    assert found is not None, "it has just been done"
    Console().print(search_summary(found))


def search_summary(found: PromptSearch) -> Group:
    """Rounds, the share of valid proposals, and the winner."""
    table = Table(box=None, pad_edge=False)
    for column in ("round", "proposed", "valid", "best score"):
        table.add_column(column, justify="right")
    table.add_column("not tried")
    for one in found.rounds:
        faults = ", ".join(f"{number} {reason}" for reason, number in one.faults.items())
        table.add_row(str(one.round), count(one.proposed), count(one.valid), str(one.best), faults)
    winner = found.instructions[found.winner]
    lines = [
        f"{found.valid} of {plural(found.proposed, 'proposal')} could be tried "
        f"({percent(found.valid / found.proposed)}); "
        f"{plural(found.empty_rounds, 'round')} without one.",
        f"Winner, of round {winner.round}: {winner.text}",
        f"On {plural(found.rows['held_out'], 'row')} that nothing was chosen by: "
        f"{percent(found.held_out.share)} ({between(found.held_out.low, found.held_out.high)}); "
        f"the best of those to begin with {percent(found.held_out_first.share)}.",
    ]
    if found.gain is not None:
        share, (low, high) = found.gain
        lines.append(
            f"Difference: {signed_points(share)} points "
            f"({signed_points(low)} to {signed_points(high)})."
        )
    return Group(table, *(Text(line) for line in lines))
