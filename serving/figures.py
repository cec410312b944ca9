"""From load results to the figures of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.recipe_section import Device
from core.teacher import Usage
from serving.load import LoadResult, Reply

OBJECTIVE = "p95"
"""The percentile of the latency that has to stay under the objective."""


def merge(results: Sequence[LoadResult]) -> LoadResult:
    """Put a model's turns together, in their order."""
    return LoadResult(
        [reply for result in results for reply in result.replies],
        sum(result.wall_seconds for result in results),
        sum(result.model_cpu_seconds for result in results),
        sum(result.path_cpu_seconds for result in results),
    )


def latency_ms(replies: Sequence[Reply]) -> dict[str, float]:
    """Percentiles and mean of the answered requests' latency, in milliseconds.

    A percentile between two replies is interpolated, as the load generator does it.
    """
    milliseconds = [reply.latency_seconds * 1000 for reply in replies if not reply.error]
    p50, p90, p95, p99 = np.percentile(milliseconds, [50, 90, 95, 99])
    return {
        "p50": float(p50),
        "p90": float(p90),
        "p95": float(p95),
        "p99": float(p99),
        "mean": float(np.mean(milliseconds)),
    }


def tokens(replies: Sequence[Reply]) -> Usage | None:
    """Tokens of all answered requests; None where the model's engine does not count them."""
    counted = [reply.usage for reply in replies if reply.usage is not None]
    return sum(counted, Usage()) if counted else None


def rate_figures(result: LoadResult) -> dict[str, Any]:
    """The figures of an open loop.

    Args:
        result: Of a load with a rate.
    """
    answered = len(result.answered)
    return {
        "rate": result.rate,
        "requests": len(result.replies),
        "errors": len(result.replies) - answered,
        "answered_per_second": answered / result.wall_seconds,
        "good_per_second": result.good_per_second,
        "latency_ms": result.latency_ms,
        "cpu_seconds_per_thousand": result.cpu_seconds / answered * 1000 if answered else None,
    }


def at_objective(rates: Sequence[dict[str, Any]], objective_ms: float) -> float | None:
    """The highest rate, in requests a second, at which the latency objective was kept.

    At that rate and at each lower one nothing failed and the 95th percentile stayed under it. None
    where it was kept at none: what was not measured is not guessed.
    """
    kept = None
    for one in sorted(rates, key=lambda one: one["rate"]):
        latency = one["latency_ms"]
        if one["errors"] or latency is None or latency[OBJECTIVE] > objective_ms:
            break
        kept = one["rate"]
    return kept


def device_seconds_per_thousand(
    result: LoadResult, device: Device | None, replicas: int, sustained: float | None
) -> float:
    """Device-seconds that a thousand requests take, to be priced by the hour.

    On the CPU the cores are the device, and what is not used is free for others: the processor
    time measured, of the HTTP path too. A GPU is held by one model, used or not, and requests do
    not come one after another: what it gives at the latency objective is what is paid for.

    Args:
        result: Of the closed loop.
        device: Of one replica or engine; None where an endpoint is paid by the token.
        replicas: How many there are.
        sustained: Requests a second at the latency objective; those of the closed loop if None.
    """
    requests = len(result.answered)
    if device is None:
        return 0.0
    if device.gpus:
        per_second = sustained or requests / result.wall_seconds
        return device.count * replicas / per_second * 1000
    return result.cpu_seconds / requests * 1000


def figures(
    result: LoadResult,
    rates: Sequence[dict[str, Any]],
    device: Device | None,
    replicas: int,
    *,
    correct: int,
    objective_ms: float,
) -> dict[str, Any]:
    """The figures of one model, as they stand in the manifest and the report.

    Args:
        result: Of the closed loop, all turns together; at least one request was answered.
        rates: Of the open loops, as `rate_figures`.
        device: Of one replica or engine.
        replicas: How many there are.
        correct: Answered requests of the closed loop whose answer is the right one.
        objective_ms: The latency objective.
    """
    requests = len(result.answered)
    used = tokens(result.replies)
    sustained = at_objective(rates, objective_ms)
    return {
        "requests": len(result.replies),
        "errors": len(result.replies) - requests,
        "device": device.kind if device else "",
        "devices": device.count * replicas if device else 0,
        "latency_ms": latency_ms(result.replies),
        "requests_per_second": requests / result.wall_seconds,
        "rates": list(rates),
        "sustained_per_second": sustained,
        "cpu_seconds_per_thousand": result.cpu_seconds / requests * 1000,
        "path_cpu_seconds_per_thousand": result.path_cpu_seconds / requests * 1000,
        "device_seconds_per_thousand": device_seconds_per_thousand(
            result, device, replicas, sustained
        ),
        "accuracy": correct / requests,
        "tokens_in": used.tokens_in if used else None,
        "tokens_cached": used.tokens_cached if used else None,
        "tokens_out": used.tokens_out if used else None,
    }
