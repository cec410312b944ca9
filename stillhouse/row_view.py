"""`stillhouse rows`: the rows of a stage, kept or rejected, to be read in the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.errors import UseError
from core.run import Run, StageFolder

LONGEST_VALUE = 2_000
"""Characters of a value that are shown."""


def show_rows(run: Run, stage: str, number: int, *, rejected: bool, match: str | None) -> None:
    """Print rows of a stage, those of a stage that is not done yet included.

    Args:
        run: The run.
        stage: Its name.
        number: Rows to print.
        rejected: The rejected rows instead of the kept ones.
        match: Only rows in which this text stands, in any case.

    Raises:
        UseError: The run has no such stage, or nothing of it is committed yet.
    """
    tables = _tables(_folder(run, stage), rejected=rejected)
    rows = (row for table in tables for row in table.to_pylist())
    if match is not None:
        wanted = match.casefold()
        rows = (row for row in rows if wanted in repr(list(row.values())).casefold())
    console = Console()
    shown = 0
    for row in itertools.islice(rows, number):
        console.print(_as_table(row))
        shown += 1
    if not shown:
        what = "rejected row" if rejected else "row"
        console.print(f"There is no {what} of '{stage}' to show.")


def _folder(run: Run, stage: str) -> StageFolder:
    state = run.state()
    assert state is not None, "the run exists"
    if stage not in state["stages"]:
        raise UseError(
            f"--stage {stage}",
            "the run has no such stage.",
            f"It has: {', '.join(state['stages'])}.",
        )
    return run.stage(stage, state["stages"][stage], state["fingerprints"][stage])


def _tables(folder: StageFolder, *, rejected: bool) -> Iterator[pa.Table]:
    manifest = folder.manifest()
    files = (folder.rejected if rejected else folder.rows).names()
    known = {f"{key}.parquet" for key in manifest.shards} if manifest else set(files)
    for name in files:
        if name in known:
            yield (folder.rejected if rejected else folder.rows).read_table(name)


def _as_table(row: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in row.items():
        if value is not None:
            table.add_row(name, Text(_shown(value)))
    table.add_row("", "")
    return table


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], float):
        return ", ".join(f"{number:.3f}" for number in value)
    text = value if isinstance(value, str) else repr(value)
    # A row may hold anything: control characters are shown, not sent to the terminal.
    text = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    if len(text) <= LONGEST_VALUE:
        return text
    return f"{text[:LONGEST_VALUE]}… ({len(text):,} characters)"
