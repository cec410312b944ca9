"""Reads what a comparison over HTTP found into the report: speed, cost and break-even."""

from __future__ import annotations

from typing import Any

from core.ledger import break_even, total
from core.prices import PriceBook
from core.recipe_serving import Compare
from stillhouse.report import data as report
from stillhouse.run_reader import RunReader, device_prices

ROLES = ("teacher", "student")


def compare_facts(reader: RunReader, student: str) -> dict[str, Any] | None:
    """What the comparison of a student found; None where it is not done."""
    name = f"compare-{student}"
    done = name in reader.finished and any(stage.name == name for stage in reader.layout)
    return reader.manifest(name).facts if done else None


def economics(reader: RunReader, student: str, made: set[str]) -> report.Economics:
    """What a student cost, and what it saves.

    Args:
        reader: Of its run.
        student: Its name in the recipe.
        made: The stages that it was made from, its training included.
    """
    prices, recipe = reader.prices, reader.loaded.training_recipe
    entries = [entry for entry in reader.entries if entry.stage in made]
    making = total(entries, prices).money if f"train-{student}" in reader.finished else None
    facts = compare_facts(reader, student)
    per_thousand = {
        role: money_per_thousand(facts[role], prices) if facts else None for role in ROLES
    }
    traffic = (recipe.compare or Compare()).requests_per_day
    even = break_even(making, per_thousand["teacher"], per_thousand["student"], traffic)
    served_on = [facts[role]["device"] for role in ROLES] if facts else []
    kinds = [*(entry.device for entry in reader.entries), *served_on]
    return report.Economics(
        currency=prices.currency,
        making=making,
        teacher_per_thousand=per_thousand["teacher"],
        student_per_thousand=per_thousand["student"],
        requests_per_day=traffic,
        break_even_requests=even.requests,
        break_even_days=even.days,
        prices=device_prices(kinds, prices),
    )


def money_per_thousand(served: dict[str, Any], prices: PriceBook) -> float | None:
    """Money for a thousand requests: of device-seconds, or of an endpoint's tokens."""
    if served["device"]:
        return prices.device_money(served["device"], served["device_seconds_per_thousand"])
    spent = prices.token_money(served["model"], served["tokens_in"], served["tokens_out"])
    answered = served["requests"] - served["errors"]
    return None if spent is None else spent / answered * 1000


def servings(reader: RunReader, student: str) -> list[report.Serving]:
    """Both models under the comparison's loads; empty where it is not done."""
    facts = compare_facts(reader, student)
    if facts is None:
        return []
    return [_serving(facts, role, reader.prices) for role in ROLES]


def _serving(facts: dict[str, Any], role: Any, prices: PriceBook) -> report.Serving:
    found = facts[role]
    answered = found["requests"] - found["errors"]
    latency = found["latency_ms"]

    def per_request(name: str) -> float | None:
        return None if found[name] is None else found[name] / answered

    return report.Serving(
        name=found["name"],
        role=role,
        requests=answered,
        failed=found["errors"],
        concurrency=facts["concurrency"],
        device=found["device"],
        devices=found["devices"],
        p50_ms=latency["p50"],
        p90_ms=latency["p90"],
        p99_ms=latency["p99"],
        requests_per_second=found["requests_per_second"],
        cpu_seconds_per_thousand=found["cpu_seconds_per_thousand"],
        path_cpu_seconds_per_thousand=found["path_cpu_seconds_per_thousand"],
        device_seconds_per_thousand=found["device_seconds_per_thousand"],
        money_per_thousand=money_per_thousand(found, prices),
        accuracy=found["accuracy"],
        tokens_in_per_request=per_request("tokens_in"),
        tokens_cached_per_request=per_request("tokens_cached"),
        objective_ms=facts["objective_ms"],
        sustained_per_second=found["sustained_per_second"],
        rates=[_rate(one) for one in found["rates"]],
    )


def _rate(found: dict[str, Any]) -> report.RatePoint:
    latency = found["latency_ms"] or {}
    return report.RatePoint(
        rate=found["rate"],
        answered_per_second=found["answered_per_second"],
        requests=found["requests"],
        failed=found["errors"],
        p50_ms=latency.get("p50"),
        p95_ms=latency.get("p95"),
        p99_ms=latency.get("p99"),
    )
