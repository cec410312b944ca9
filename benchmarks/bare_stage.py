"""A stage without a recipe's run around it, for benchmarks that measure what stands below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.ledger import Ledger
from core.recipe import LoadedRecipe
from core.recipe_file import load_recipe
from core.run import Folder, Run
from core.stage import StageContext
from stillhouse.methods import recipe_model

ROOT = Path(__file__).parents[1]


def bare_stage(folder: Path, engine: Any, shard_rows: int) -> StageContext:
    """The context of a stage that asks one engine, in a run folder of its own."""
    recipe = load_recipe(ROOT / "recipes" / "demo.yaml", recipe_model).recipe.model_copy(
        update={"shard_rows": shard_rows}
    )
    run = Run(Folder(str(folder)))
    return StageContext(
        stage=run.stage("bench", "w" * 12),
        recipe=LoadedRecipe(recipe, ROOT),
        settings={},
        inputs={},
        engine=lambda _: engine,
        model=Path,
        fingerprint="f",
        attempt="a",
        write_entry=Ledger(run.ledger).write,
        show=lambda _: None,
        over_budget=lambda _: None,
        logs=folder,
    )
