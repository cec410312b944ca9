"""From load results to the figures of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.recipe_section import Device
from core.teacher import Usage
from serving.load import LoadResult, Reply


def merge(results: Sequence[LoadResult]) -> LoadResult:
    """Put a model's rounds together, in their order."""
    return LoadResult(
        [reply for result in results for reply in result.replies],
        sum(result.wall_seconds for result in results),
        sum(result.model_cpu_seconds for result in results),
        sum(result.path_cpu_seconds for result in results),
    )


def answered(replies: Sequence[Reply]) -> list[Reply]:
    """The replies that are no errors."""
    return [reply for reply in replies if not reply.error]


def latency_ms(replies: Sequence[Reply]) -> dict[str, float]:
    """Percentiles and mean of the answered requests' latency, in milliseconds.

    A percentile between two replies is interpolated.
    """
    milliseconds = [reply.latency_seconds * 1000 for reply in answered(replies)]
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    return {
        "p50": float(p50),
        "p90": float(p90),
        "p99": float(p99),
        "mean": float(np.mean(milliseconds)),
    }


def tokens(replies: Sequence[Reply]) -> Usage | None:
    """Tokens of all answered requests; None where the model's engine does not count them."""
    counted = [reply.usage for reply in replies if reply.usage is not None]
    return sum(counted, Usage()) if counted else None


def device_seconds_per_thousand(result: LoadResult, device: Device | None, replicas: int) -> float:
    """Device-seconds that a thousand requests take, to be priced by the hour.

    On the CPU the cores are the device, and what is not used is free for others: the processor
    time measured, of the HTTP path too. A GPU is held by one model: its wall time, whether used or
    not, at the rate of requests that this load reached.

    Args:
        result: Of the load.
        device: Of one replica or engine; None where an endpoint is paid by the token.
        replicas: How many there are.
    """
    requests = len(answered(result.replies))
    if device is None:
        return 0.0
    if device.gpus:
        return device.count * replicas * result.wall_seconds / requests * 1000
    return result.cpu_seconds / requests * 1000


def figures(
    result: LoadResult, device: Device | None, replicas: int, correct: int
) -> dict[str, Any]:
    """The figures of one model, as they stand in the manifest and the report.

    Args:
        result: All rounds together; at least one request was answered.
        device: Of one replica or engine.
        replicas: How many there are.
        correct: Answered requests whose label is the right one.
    """
    requests = len(answered(result.replies))
    used = tokens(result.replies)
    return {
        "requests": len(result.replies),
        "errors": len(result.replies) - requests,
        "device": device.kind if device else "",
        "devices": device.count * replicas if device else 0,
        "latency_ms": latency_ms(result.replies),
        "requests_per_second": requests / result.wall_seconds,
        "cpu_seconds_per_thousand": result.cpu_seconds / requests * 1000,
        "path_cpu_seconds_per_thousand": result.path_cpu_seconds / requests * 1000,
        "device_seconds_per_thousand": device_seconds_per_thousand(result, device, replicas),
        "accuracy": correct / requests,
        "tokens_in": used.tokens_in if used else None,
        "tokens_cached": used.tokens_cached if used else None,
        "tokens_out": used.tokens_out if used else None,
    }
