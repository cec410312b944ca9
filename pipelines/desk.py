"""What the workers of a stage and its driver tell each other while rows are answered."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Desk:
    """Counts come in, and the word to stop: in this process, or as a small actor for workers."""

    def __init__(self) -> None:
        self._answered: Counter[str] = Counter()
        self._stopped: set[str] = set()

    def note(self, lane: str, answered: int) -> bool:
        """Note rows that a worker has answered since its last note; says whether to go on."""
        self._answered[lane] += answered
        return lane not in self._stopped

    def answered(self) -> dict[str, int]:
        """Rows answered so far, by lane."""
        return dict(self._answered)

    def stop(self, lane: str) -> None:
        """Let no further shard of a lane begin."""
        self._stopped.add(lane)


class StageDesk:
    """The driver's side: its own desk, and an actor where workers are elsewhere."""

    def __init__(self, *, elsewhere: bool) -> None:
        self.here = Desk()
        self.actor: Any = None
        if elsewhere:
            from pipelines.beside_driver import actor_beside_driver

            self.actor = actor_beside_driver(Desk).remote()

    async def note_here(self, lane: str, answered: int) -> bool:
        """`Desk.note` for a worker in this process."""
        return self.here.note(lane, answered)

    def answered(self) -> dict[str, int]:
        """Rows answered so far, by lane."""
        found = self.here.answered()
        if self.actor is not None:
            import ray

            found |= ray.get(self.actor.answered.remote())
        return found

    def stop(self, lane: str) -> None:
        """Let no further shard of a lane begin."""
        self.here.stop(lane)
        if self.actor is not None:
            import ray

            ray.get(self.actor.stop.remote(lane))

    def close(self) -> None:
        """Give the actor back."""
        if self.actor is not None:
            import ray

            ray.kill(self.actor)
