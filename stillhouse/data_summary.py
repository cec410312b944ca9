"""What a run of teacher data came to: by teacher, rows, tokens and money."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from core.ledger import Ledger, total
from core.prices import PriceBook
from core.run import Run
from stillhouse.report.wording import count, money, percent


def data_summary(run: Run, prices: PriceBook) -> Group:
    """A table of the teachers, and what was rejected for which reason."""
    entries = Ledger(run.ledger).entries()
    table = Table(box=None, pad_edge=False)
    table.add_column("teacher")
    for column in ("rows", "tokens in", "cached", "tokens out", "cost"):
        table.add_column(column, justify="right")
    rejected: dict[str, int] = {}
    for folder in run.finished_stages().values():
        manifest = folder.manifest()
        assert manifest is not None
        for reason, number in manifest.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + number
        for teacher, rows in manifest.facts.get("rows_by_teacher", {}).items():
            used = total([entry for entry in entries if entry.teacher == teacher], prices)
            tokens = used.entry
            cached = percent(tokens.tokens_cached / tokens.tokens_in) if tokens.tokens_in else ""
            table.add_row(
                teacher,
                count(rows),
                count(tokens.tokens_in),
                cached,
                count(tokens.tokens_out),
                money(used.money, prices.currency),
            )
    reasons = ", ".join(f"{count(number)} {reason}" for reason, number in rejected.items())
    spent = money(total(entries, prices).money, prices.currency)
    return Group(
        table,
        "",
        f"Rejected: {reasons or 'none'}. Cost in all: {spent}.",
        f"Rows: stillhouse rows {run.folder.location} --stage ask",
    )
