"""Arguments and options that several commands have, and how a recipe is loaded by them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from core.recipe import LoadedRecipe

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
RunFolder = Annotated[
    str, typer.Argument(help="The run's folder or object-store URL.", show_default=False)
]
Profile = Annotated[
    str | None, typer.Option(help="Overlay from the recipe's own profiles.", show_default=False)
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key, such as students.minilm.train.epochs=3. Repeatable.",
        show_default=False,
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", help="Folder or object-store URL of the run. [default: runs/NAME]"),
]


def load(
    recipe: Path,
    profile: str | None,
    settings: list[str] | None,
    values: Mapping[str, Any] | None = None,
    variant: Mapping[str, Any] | None = None,
) -> LoadedRecipe:
    """Load a recipe as the command line names it.

    Args:
        recipe: The YAML file.
        profile: Overlay.
        settings: Of `--set`.
        values: Those of a sweep's trial.
        variant: What an ablation changes of all that.

    Raises:
        UseError: It is not sound.
    """
    from core.recipe_file import load_recipe
    from stillhouse.methods import recipe_model

    return load_recipe(recipe, recipe_model, profile, settings or [], values, variant=variant)
