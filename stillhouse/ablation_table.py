"""An ablation's variants and claims as people read them on a terminal."""

from __future__ import annotations

from rich.table import Table

from stillhouse.report.ablation import (
    NOT_YET,
    OTHER,
    claim_in_words,
    gap_in_words,
    interval_in_words,
    spread_in_words,
)
from stillhouse.report.data import Ablations
from stillhouse.report.wording import percent


def cells_done(found: Ablations) -> str:
    """How many cells are done, in words."""
    return f"{found.done} of {found.cells} cells done"


def variant_table(found: Ablations) -> Table:
    """All variants: accuracy, spread over seeds, and the difference from the recipe as it is."""
    table = Table(box=None, pad_edge=False, caption_style="", caption_justify="left")
    table.add_column("variant")
    other = OTHER[found.judged_by] if found.has_other else None
    before, after = ("right", *([other] if other else [])), ("difference", "95% interval", "seeds")
    for column in (*before, "spread", *after):
        table.add_column(column, justify="right", no_wrap=True)
    for variant in found.variants:
        done = sum(share is not None for share in variant.by_seed)
        table.add_row(
            variant.name,
            "" if variant.mean is None else percent(variant.mean),
            *(["" if variant.other is None else percent(variant.other)] if other else []),
            spread_in_words(variant.spread),
            gap_in_words(variant.gap),
            interval_in_words(variant.gap),
            f"{done} of {len(found.seeds)}",
        )
    return table


def claims_table(found: Ablations) -> Table:
    """What is said of the variants, and what was measured."""
    table = Table(box=None, pad_edge=False)
    for column in ("claim", "difference", "95% interval", ""):
        right = column in ("difference", "95% interval")
        table.add_column(column, justify="right" if right else "left", no_wrap=right)
    for claim in found.claims:
        table.add_row(
            claim.says if claim.keeps is None else f"{claim.says}\n{claim_in_words(claim)}",
            gap_in_words(claim.gap),
            interval_in_words(claim.gap),
            claim.verdict or NOT_YET,
        )
    return table
