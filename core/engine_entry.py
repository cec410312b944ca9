"""The ledger's entry of a stage that uses a teacher's engines."""

from __future__ import annotations

from core.ledger import Entry
from core.stage import StageContext
from core.teacher import Engine


def engine_entry(
    context: StageContext,
    engine: Engine,
    statistics: dict[str, float],
    rows: int,
    wall_seconds: float,
) -> Entry:
    """What a stage has used of an engine: all that no stage before it has put into the ledger.

    Args:
        context: Of the stage.
        engine: The teacher's.
        statistics: What the engine said of itself just now.
        rows: Committed or answered by this attempt.
        wall_seconds: Since the attempt's begin.
    """
    used = {key: value - engine.accounted.get(key, 0) for key, value in statistics.items()}
    device = engine.device
    count = device.count if device else 0.0
    return Entry(
        stage=context.stage.stage,
        attempt=context.attempt,
        device=device.kind if device else "",
        model=engine.model,
        teacher=engine.teacher,
        requests=int(used["requests"]),
        tokens_in=int(used["tokens_in"]),
        tokens_cached=int(used["tokens_cached"]),
        tokens_out=int(used["tokens_out"]),
        rows=rows,
        startup_seconds=used["startup"] * count,
        useful_seconds=used["useful"] * count,
        idle_seconds=used["idle"] * count,
        wall_seconds=wall_seconds,
    )
