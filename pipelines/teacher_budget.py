"""How many rows a budget of calls or of money lets a teacher be asked about (2406.05322).

How a budget of money is turned into calls is ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from core.errors import UseError, WorkError
from core.prices import TokenPrice, recipe_prices
from core.rows import INPUT
from core.run import StageFolder
from core.stage import StageContext, StageResult
from pipelines.asked_texts import FILLING_ERRORS, Asked, fill_in
from pipelines.drawing import drawing_number, drawn_rows
from pipelines.questions import each
from pipelines.row_work import Row, rejected_table

WARM_UP = "warm-up"
"""The draw that puts rows in the order in which chance would take them."""

TEMPLATE_TOKENS = 64
"""Tokens that a chat template puts around a prompt at most."""


@dataclass(frozen=True)
class Call:
    """A question to the teacher about a row: what the setting `call` of a stage says."""

    teacher: str
    user: str
    """Jinja text of the prompt."""
    system: str
    max_tokens: int
    """Of an answer."""
    samples: int
    """Calls for each row."""


def dearest(asked: Asked, max_tokens: int, price: TokenPrice) -> float:
    """Money that a call takes at most: no token is shorter than a byte.

    Args:
        asked: What is said.
        max_tokens: Of the answer.
        price: Of the model's tokens.
    """
    said = len("".join([asked.system, *asked.turns]).encode("utf-8", "surrogatepass"))
    paid = price.input_per_million * (said + TEMPLATE_TOKENS)
    return (paid + price.output_per_million * max_tokens) / 1e6


def paid_for(tokens: Iterable[tuple[int, int]], price: TokenPrice) -> float:
    """Money for calls, by the tokens in and out of each."""
    found = (price.input_per_million * i + price.output_per_million * o for i, o in tokens)
    return math.fsum(found) / 1e6


def rows_of_warm_up(calls: int, samples: int, share: float) -> int:
    """Rows that are drawn for the warm-up: the share of those that the budget holds, rounded down.

    A share above 0 draws one row at least: there is no warm-up of nothing.

    Args:
        calls: Of the whole budget, enough for a row.
        samples: Calls for each row.
        share: From 0 to 1.
    """
    rows = math.floor(share * (calls // samples) + 1e-9)
    return max(rows, 1) if share else 0


def token_price(context: StageContext, teacher: str) -> TokenPrice:
    """What the price book has for the tokens of a teacher's model.

    Raises:
        UseError: Nothing.
    """
    model = context.recipe.recipe.teachers[teacher].model
    price = recipe_prices(context.recipe).tokens.get(model)
    if price is None:
        raise UseError(
            "assist.budget.money",
            f"the price book has no price for a token of {model}, so money is no number of calls.",
            "Name the model under tokens in a price book of your own (prices), or give calls.",
        )
    return price


def draw_warm_up(context: StageContext) -> StageResult:
    """Stage: the rows that the teacher is asked about first, drawn at random.

    Of money they are as many as its share pays for, each at the dearest that it can be.

    Settings: `call`, a `Call` as a dictionary; `calls` or `money`, the whole budget; `share`;
    `seed`.
    Inputs: `inputs`, input rows.

    Raises:
        WorkError: The money does not pay for one row, or there is none.
    """
    settings, call = context.settings, Call(**context.settings["call"])
    inputs = context.inputs["inputs"]

    if settings["calls"] is not None:
        most = rows_of_warm_up(settings["calls"], call.samples, settings["share"])
    else:
        costs = dearest_rows(context, each(inputs), call)
        order = sorted(costs, key=lambda row_id: drawing_number(row_id, settings["seed"], WARM_UP))
        most = affordable((costs[one] for one in order), settings["share"] * settings["money"])
    rows = drawn_rows(each(inputs), most, settings["seed"], WARM_UP)
    if not rows:
        raise WorkError(
            "assist.budget",
            "not one row can be put to the teacher with it.",
            "Raise it, or see the rejected rows of the stages before.",
        )
    nothing = rejected_table(context.stage.stage, [])
    context.stage.commit_shard("rows", pa.Table.from_pylist(rows, schema=INPUT), nothing)
    return StageResult(["rows"], len(rows))


def dearest_rows(context: StageContext, rows: Iterable[Row], call: Call) -> dict[str, float]:
    """By the rows' ids: what all calls about it take at most.

    Raises:
        UseError: The model's tokens have no price.
    """
    price = token_price(context, call.teacher)
    found: dict[str, float] = {}
    for row in rows:
        try:
            asked = fill_in(call.user, call.system, json.loads(row["fields"]))
        except FILLING_ERRORS:  # it is not asked, and costs nothing
            found[row["id"]] = 0.0
        else:
            found[row["id"]] = call.samples * dearest(asked, call.max_tokens, price)
    return found


def affordable(costs: Iterable[float], money: float) -> int:
    """How many of the first costs money pays for."""
    number, left = 0, money
    for cost in costs:
        left -= cost
        if left < 0:
            break
        number += 1
    return number


def rows_left(context: StageContext, call: Call, asked: int, answers: StageFolder | None) -> int:
    """Rows that the rest of the budget pays for, by what the calls so far took on average.

    Args:
        context: With the settings `calls` and `money`.
        call: What is asked about each row.
        asked: Rows so far, at least one where the budget is money.
        answers: The finished stage that asked about them; None where none did.

    Raises:
        UseError: Nobody has counted the tokens, or all calls failed.
    """
    calls = context.settings["calls"]
    if calls is not None:
        return max(int(calls) // call.samples - asked, 0)
    assert answers is not None, "without a warm-up each call counts as the dearest"
    price = token_price(context, call.teacher)
    tokens = [
        (usage["tokens_in"], usage["tokens_out"])
        for table in answers.iter_shards(["usage"])
        for usage in table["usage"].to_pylist()
    ]
    unknown: Any = any(count is None for pair in tokens for count in pair)
    if unknown or not tokens:
        cause = "nobody has counted the tokens of its answers" if unknown else "it answered nothing"
        raise UseError(
            "assist.budget.money",
            f"what a call to {call.teacher} takes is not known: {cause}.",
            "Give calls; of recorded answers name columns.tokens_in and columns.tokens_out.",
        )
    mean = paid_for(tokens, price) / len(tokens)
    spent = mean * asked * call.samples
    if not mean:
        raise UseError(
            "assist.budget.money", "the teacher's tokens cost nothing.", "Give calls instead."
        )
    left: float = context.settings["money"] - spent
    return max(math.floor(left / (mean * call.samples)), 0)
