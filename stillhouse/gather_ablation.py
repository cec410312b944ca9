"""Reads a run's ablation into the report."""

from __future__ import annotations

from dataclasses import replace

from core.ledger import total
from core.recipe import TrainingRecipe
from core.recipe_ablation import AS_IT_IS
from stillhouse.ablation_book import read_ablation
from stillhouse.report.data import Ablations
from stillhouse.run_reader import RunReader

CHANGED = (
    "The recipe has changed since: the variants are beside an older one. `stillhouse ablate` "
    "compares them with this one."
)


def ablations_of(reader: RunReader) -> Ablations | None:
    """The variants of a run, done or not; None where it has none."""
    recipe = reader.loaded.recipe
    wanted = isinstance(recipe, TrainingRecipe) and recipe.ablate is not None
    book = read_ablation(reader.run) if wanted else None
    if book is None:
        return None
    state = reader.run.state()
    assert state is not None, "the run exists"
    own = set(state["stages"].items())
    works = {pair for cell in book.cells for pair in cell.works.items()} - own
    spent = total((e for e in reader.spent if (e.stage, e.work) in works), reader.prices)
    notes = list(book.found.notes)
    now = {state["fingerprints"][s.name] for s in reader.layout if s.predicts == book.found.student}
    made = {
        cell.fingerprint
        for cell in book.cells
        if cell.variant == AS_IT_IS and cell.seed == recipe.seed
    }
    if not made <= now:
        notes.append(CHANGED)
    return replace(
        book.found, notes=notes, device_seconds=spent.entry.device_seconds, money=spent.money
    )
