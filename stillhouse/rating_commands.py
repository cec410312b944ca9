"""`stillhouse ratings`: people rate what models answered, without knowing which is which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stillhouse.options import RunFolder

app = typer.Typer(help="Blind ratings by people.", no_args_is_help=True)

Sheet = Annotated[Path, typer.Argument(help="The sheet, a CSV file.", show_default=False)]


@app.command("export")
def export_ratings(
    folder: RunFolder,
    sheet: Sheet,
    *,
    rows: Annotated[
        int, typer.Option(min=1, help="Evaluation rows of each data set at most.")
    ] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw and of the order.")] = 0,
) -> None:
    """Write a blind sheet of all models' answers to some evaluation rows."""
    from stillhouse.rating_sheet import export_sheet
    from stillhouse.workflow import open_run

    number = export_sheet(open_run(folder), sheet, rows, seed)
    typer.echo(f"{sheet}: {number} replies to rate from 1 (not helpful) to 5 (very helpful).")


@app.command("import")
def import_ratings(
    folder: RunFolder,
    sheet: Sheet,
    *,
    rater: Annotated[
        str, typer.Option(help="Who filled it in: a number says enough.", show_default=False)
    ],
) -> None:
    """Take in a sheet that somebody has filled in, and tell how far raters agree."""
    import re

    from stillhouse.rating_sheet import import_sheet
    from stillhouse.workflow import open_run

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", rater):
        raise typer.BadParameter("--rater has letters, digits, dots, dashes and underscores.")
    done = import_sheet(open_run(folder), sheet, rater)
    typer.echo(f"{done.ratings} ratings by {rater}, {done.blank} lines left blank.")
    if len(done.raters) > 1:
        alpha = "cannot be told" if done.alpha is None else f"{done.alpha:.2f}"
        typer.echo(f"Agreement of {len(done.raters)} raters (Krippendorff's alpha): {alpha}.")
    typer.echo("stillhouse report writes them into the page.")
