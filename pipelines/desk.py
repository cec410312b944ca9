"""What the workers of a stage and its driver tell each other while rows are answered."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ray


class Desk:
    """The body of a small actor, one for a whole run: counts come in, and the word to stop."""

    def __init__(self) -> None:
        self._answered: Counter[str] = Counter()
        self._stopped: set[str] = set()

    async def note(self, lane: str, answered: int) -> bool:
        """Note rows that a worker has answered since its last note; says whether to go on."""
        self._answered[lane] += answered
        return lane not in self._stopped

    async def answered(self) -> dict[str, int]:
        """Rows answered so far, by lane."""
        return dict(self._answered)

    async def stop(self, lane: str) -> None:
        """Let no further shard of a lane begin."""
        self._stopped.add(lane)


def open_desk() -> Any:
    """The desk's actor, started anew: a stage counts from zero."""
    return ray.remote(Desk).options(num_cpus=0, max_concurrency=10_000).remote()
