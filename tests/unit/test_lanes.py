"""Lanes that ask endpoints: real HTTP, from the driver alone, without a Ray."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace

import pytest
import ray

from core.errors import UseError, WorkError
from core.identity import content_id
from core.ledger import Ledger, total
from core.prices import PriceBook, TokenPrice
from core.recipe import Budget, LoadedRecipe
from core.recipe_file import load_recipe
from core.recipe_teachers import EndpointTeacher
from core.rows import GENERATED
from core.run import Folder, Run
from core.stage import StageContext
from core.teacher import Sampling
from pipelines.endpoint import Endpoint
from pipelines.row_work import Rejection
from pipelines.shards import Lane, run_shards
from stillhouse.methods import recipe_model
from stillhouse.spending import Spending
from tests.endpoint_server import failed, said, server
from tests.unit.test_recipe_file import RECIPE

__all__ = ["server"]

PRICES = PriceBook(
    currency="USD",
    tokens={"big": TokenPrice(input_per_million=10.0, output_per_million=100.0, source="test")},
)


@dataclass(frozen=True)
class Ask:
    engine: Endpoint

    schema = GENERATED

    async def __call__(self, row):
        answer = await self.engine.complete(row["prompt"], Sampling(max_tokens=4))
        if answer.finish == "error":
            return Rejection(answer.reason, answer.error, row)
        return {
            "id": row["id"],
            "teacher": self.engine.teacher,
            "mode": "asked",
            "question": answer.text,
            "choices": [],
            "intended": 0,
            "usage": asdict(answer.usage),
        }


@pytest.fixture
def context_of(tmp_path):
    for name in ("examples.jsonl", "evaluation.jsonl"):
        (tmp_path / name).write_text('{"question": "Who won?", "answer": "sports"}\n')
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.yaml", recipe_model).recipe
    run = Run(Folder(str(tmp_path / "run")))

    def context(**limits):
        changed = recipe.model_copy(update={"shard_rows": 10, **limits})
        spending = Spending(Ledger(run.ledger), changed.budget, PRICES)
        return StageContext(
            stage=run.stage("ask", "w" * 12),
            recipe=LoadedRecipe(changed, tmp_path),
            settings={},
            inputs={},
            engine=lambda _: None,
            model=lambda name: name,
            fingerprint="f",
            attempt=content_id(changed.budget.model_dump())[:8],
            write_entry=lambda entry: spending.write(entry, "w"),
            show=lambda _: None,
            over_budget=spending.over,
            logs=tmp_path,
        )

    context.run = run
    return context


def lane(server, name, rows, **settings):
    section = EndpointTeacher(
        backend="openai", model="big", base_url=server.url, max_concurrency=4, **settings
    )
    engine = Endpoint(name, section, backoff_seconds=0.01)
    plan = [{"id": content_id(name, n), "prompt": f"{name} {n}"} for n in range(rows)]
    return Lane(engine, plan, Ask(engine))


def prompt_of(body):
    return body["messages"][0]["content"]


def asked(server):
    return [prompt_of(arrival.body) for arrival in server.arrivals]


def test_two_endpoints_answer_in_one_pass_and_no_ray_is_started(server, context_of):
    server.behave = lambda number, body: said(prompt_of(body).upper())
    result = run_shards(context_of(), [lane(server, "one", 55), lane(server, "two", 30)])
    assert result.rows == 85
    assert not ray.is_initialized()
    assert len(set(asked(server))) == len(server.arrivals) == 85
    # Both are asked at the same time, and not one after the other.
    first_of_two = asked(server).index(next(p for p in asked(server) if p.startswith("two")))
    assert first_of_two < 55
    entries = Ledger(context_of.run.ledger).entries()
    assert {(e.device, e.device_seconds) for e in entries} == {("", 0.0)}
    # 85 requests of 10 tokens in and 3 out.
    assert total(entries, PRICES).money == pytest.approx(85 * (10 * 10 + 3 * 100) / 1e6)


def test_an_endpoint_that_fails_leaves_the_other_going_and_is_all_that_is_asked_again(
    server, context_of
):
    def behave(number, body):
        bad = prompt_of(body).startswith("two") and int(prompt_of(body).split()[1]) >= 12
        return failed(401, "who are you") if bad else said("fine")

    server.behave = behave
    with pytest.raises(UseError, match="refuses the key"):
        run_shards(context_of(), [lane(server, "one", 40), lane(server, "two", 30)])
    stage = context_of().stage
    done = sum(stage.rows.row_count(name) for name in stage.rows.names())
    assert done >= 40
    server.behave = lambda number, body: said("fine")
    before = len(server.arrivals)
    result = run_shards(context_of(), [lane(server, "one", 40), lane(server, "two", 30)])
    assert result.rows == 70
    assert len(server.arrivals) - before == 70 - done
    assert all(prompt.startswith("two") for prompt in asked(server)[before:])


def test_a_refused_prompt_is_a_rejected_row_with_its_reason(server, context_of):
    def behave(number, body):
        return failed(400, "content filter") if "7" in prompt_of(body) else said("fine")

    server.behave = behave
    result = run_shards(context_of(), [lane(server, "one", 20)])
    assert (result.rows, result.rejected) == (18, {"refused": 2})
    rejected = context_of().stage.rejected
    details = [
        row["detail"] for name in rejected.names() for row in rejected.read_table(name).to_pylist()
    ]
    assert all("content filter" in detail for detail in details)


def test_a_budget_of_tokens_is_not_exceeded_and_can_be_raised(server, context_of):
    async def slowly():
        await asyncio.sleep(0.2)  # four at a time: twenty rows from one look to the next
        return said("fine")

    server.behave = lambda number, body: slowly()
    budget = Budget(tokens=13 * 100)
    with pytest.raises(WorkError, match=r"\d+ of 1,300 is spent") as caught:
        run_shards(context_of(budget=budget), [lane(server, "one", 1000)])
    assert caught.value.place == "budget.tokens"
    spent = total(Ledger(context_of.run.ledger).entries(), PRICES).entry
    assert 13 * 30 <= spent.tokens <= 13 * 100
    committed = len(server.arrivals)
    server.behave = lambda number, body: said("fine")
    assert run_shards(context_of(), [lane(server, "one", 1000)]).rows == 1000
    assert len(server.arrivals) - committed <= 1000 - committed + 40  # shards that were cut short


def test_a_budget_of_money_wants_every_price(server, context_of):
    server.behave = lambda number, body: said("fine")
    context = replace(context_of(budget=Budget(money=1.0)))
    unknown = lane(server, "one", 10)
    unknown.engine.model = "nobody knows"
    with pytest.raises(UseError, match="a price is missing"):
        run_shards(context, [unknown])


def test_an_answer_that_is_found_again_belongs_to_the_item_that_asks_now(server, context_of):
    """Equal questions of two items are one piece of work; another plan may keep the other item."""
    server.behave = lambda number, body: said("fine")

    def run(items, fingerprint):
        one = lane(server, "one", 0)
        plan = [
            {"id": content_id(n), "prompt": f"one {n}", "teacher": item}
            for n, item in enumerate(items)
        ]
        context = replace(context_of(), fingerprint=fingerprint)
        result = run_shards(context, [Lane(one.engine, plan, one.work)])
        tables = [context.stage.rows.read_table(f"{key}.parquet") for key in result.shards]
        return [row["teacher"] for table in tables for row in table.to_pylist()]

    assert run(["a"] * 25, "first") == ["one"] * 25
    assert run(["b"] * 25, "second") == ["b"] * 25
    assert run(["b"] * 30, "third") == ["b"] * 25 + ["one"] * 5
    assert len(server.arrivals) == 30
