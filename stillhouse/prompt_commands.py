"""`stillhouse prompts`: the templates that recipes name."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="The prompt templates that recipes name.", no_args_is_help=True)


@app.command("list")
def list_templates() -> None:
    """Show the templates of the library, with a sentence on each."""
    from rich.console import Console
    from rich.table import Table

    from pipelines.prompt_library import read_template, template_names

    table = Table(box=None, pad_edge=False)
    table.add_column("template", no_wrap=True)
    table.add_column("what it asks for")
    for name in template_names():
        table.add_row(name, read_template(name)[0].about)
    Console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Such as math/vanilla.", show_default=False)],
) -> None:
    """Print a template's file, to be copied and changed beside a recipe."""
    from pipelines.prompt_library import template_text

    typer.echo(template_text(name), nl=False)
