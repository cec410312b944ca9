"""`stillhouse prompts`: the templates that recipes name, and the search for a better prompt."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse.options import Profile, RecipeFile, RunOption, Settings, load

app = typer.Typer(
    help="The prompt templates that recipes name, and the search for a better one.",
    no_args_is_help=True,
)


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


@app.command()
def optimize(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    folder: RunOption = None,
    update: Annotated[
        bool, typer.Option(help="Go on after the recipe changed: redo what depends on it.")
    ] = False,
) -> None:
    """Search for a better prompt, as the recipe's section optimize says; a run goes on with it."""
    from core.run import Folder, Run
    from stillhouse.display import show_run
    from stillhouse.search_table import print_search
    from stillhouse.searching import OPTIMIZE, refuse_without_search
    from stillhouse.workflow import plan_run, refuse_other_recipe

    loaded = load(recipe, profile, settings)
    plan = plan_run(loaded, Run(Folder(folder or f"runs/{loaded.recipe.name}")))
    refuse_without_search(plan.stages, loaded.recipe.name)
    if not update:
        refuse_other_recipe(plan)
    show_run(plan, OPTIMIZE)
    print_search(plan.run)
