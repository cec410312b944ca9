"""An estimate on the terminal: a line for each stage and teacher, and what it means for the run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group
from rich.table import Table

from core.ledger import Ledger, Total, total
from core.prices import PriceBook, recipe_prices
from stillhouse.estimate import Amount, Estimate, Line, against
from stillhouse.report.wording import UNKNOWN, count, money, number, percent
from stillhouse.workflow import Plan

FATES = {
    "enough": "is enough for these stages",
    "in doubt": "may not be enough",
    "exceeded": "is not enough: the run will stop there",
}


def estimate_table(found: Estimate, plan: Plan, attempt: str | None = None) -> Group:
    """What the asking stages of a plan will use, and what of it is left.

    Args:
        found: The estimate.
        plan: Of all rows.
        attempt: That asked the sample, to tell what it took.
    """
    prices = recipe_prices(plan.loaded)
    currency = prices.currency
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "teacher"):
        table.add_column(column)
    for column in ("rows", "tokens in", "cached", "tokens out", "device-h", "cost", "95% interval"):
        table.add_column(column, justify="right")
    for line in found.lines:
        table.add_row(*_cells(line, currency))
    for start in found.start_ups:
        hours = number(start.device_seconds / 3600)
        cost = money(start.money, currency)
        table.add_row("start-up", start.teacher, "", "", "", "", hours, cost, "")
    whole = found.money
    device = found.device_seconds
    table.add_row(
        "total",
        "",
        "",
        count(_sum(line.tokens_in for line in found.lines)),
        "",
        count(_sum(line.tokens_out for line in found.lines)),
        number(device.value / 3600) if device.value else "",
        _value(whole, currency),
        _interval(whole, currency),
        style="bold",
    )
    entries = Ledger(plan.run.ledger).entries()
    spent = total(entries, prices)
    texts = []
    if attempt is not None:
        texts.append(_sample(total([e for e in entries if e.attempt == attempt], prices), currency))
    texts += [_tokens(found), _left(found, spent, currency), *_budget(found, plan, spent, prices)]
    return Group(table, "", *texts, *_limits(found, plan))


def _cells(line: Line, currency: str) -> list[str]:
    rows = count(round(line.rows.value))
    if line.rows.reach:
        rows = f"about {rows}"
    tokens_in = line.tokens_in.value
    seconds = line.device_seconds
    return [
        line.stage,
        line.teacher,
        rows,
        count(round(tokens_in)),
        percent(line.tokens_cached.value / tokens_in) if tokens_in else "",
        count(round(line.tokens_out.value)),
        number(seconds.value / 3600) if seconds else "",
        _value(line.money, currency),
        _interval(line.money, currency),
    ]


def _sum(amounts: Iterator[Amount]) -> int:
    return round(math.fsum(amount.value for amount in amounts))


def _value(amount: Amount | None, currency: str) -> str:
    return money(None if amount is None else amount.value, currency)


def _interval(amount: Amount | None, currency: str) -> str:
    if amount is None or math.isinf(amount.reach):
        return UNKNOWN
    return f"{money(amount.low, currency)} to {money(amount.high, currency)}"


def _sample(took: Total, currency: str) -> str:
    if not took.entry.requests:
        return "The sample was there already: nothing was spent on it."
    hours = took.entry.device_seconds / 3600
    device = f", {number(hours)} device-hours, start-up included" if hours else ""
    return (
        f"The sample took {count(took.entry.requests)} requests, {count(took.entry.tokens)} "
        f"tokens{device}, cost {money(took.money, currency)}. The run uses its rows."
    )


def _tokens(found: Estimate) -> str:
    tokens = found.tokens
    within = UNKNOWN
    if math.isfinite(tokens.reach):
        within = f"{count(round(tokens.low))} to {count(round(tokens.high))}"
    return f"Tokens in and out: {count(round(tokens.value))}, 95% interval {within}."


def _left(found: Estimate, spent: Total, currency: str) -> str:
    whole = found.money
    left = None if whole is None else whole.left
    return (
        f"Spent so far: {money(spent.money, currency)}. "
        f"Left to spend: {_value(left, currency)}, "
        f"95% interval {_interval(left, currency)}."
    )


def _budget(found: Estimate, plan: Plan, spent: Total, prices: PriceBook) -> Iterator[str]:
    """A sentence for each limit of the budget."""
    budget = plan.loaded.recipe.budget
    hours = found.device_seconds.left.times(1 / 3600)
    money_left = None if found.money is None else found.money.left
    limits = [
        ("money", budget.money, spent.money, money_left, money(budget.money, prices.currency)),
        (
            "device_hours",
            budget.device_hours,
            spent.entry.device_seconds / 3600,
            hours,
            number(budget.device_hours),
        ),
        ("tokens", budget.tokens, spent.entry.tokens, found.tokens.left, count(budget.tokens)),
    ]
    for name, limit, used, left, shown in limits:
        if limit is None:
            continue
        fate = "cannot be judged without every price"
        if used is not None and left is not None:
            fate = FATES[against(limit, used, left)]
        yield f"budget.{name}, {shown}, {fate}."


def _limits(found: Estimate, plan: Plan) -> Iterator[str]:
    """What the estimate does not say."""
    if any(line.device_seconds is not None for line in found.lines):
        yield (
            "Device-hours are at the pace of the rows so far, too many where engines can work on "
            "more rows at once; the time that engines wait is not among them."
        )
    others = [
        stage.name
        for stage in plan.stages
        if not stage.asks and (stage.teachers or stage.holds) and not plan.done(stage.name)
    ]
    left_out = [*found.unknown, *others]
    if left_out:
        yield f"Not in the estimate: {', '.join(left_out)}."
