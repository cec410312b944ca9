"""What the workers of a stage and its driver tell each other while rows are answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from core.teacher import Engine


class Desk:
    """Counts come in, and the word to stop goes out."""

    def __init__(self) -> None:
        self.begin_stage()

    def begin_stage(self) -> None:
        """Forget the stage before."""
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
    """The driver's side: a desk of its own, and those of engines that workers elsewhere ask.

    Such an engine lends its roster for it: it stands beside the driver anyway, and an actor more
    for every stage would take seconds to start.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        """Open the desks.

        Args:
            engines: Of the stage's lanes, by lane.
        """
        self.here = Desk()
        self.far = {
            name: engine.desk for name, engine in engines.items() if engine.desk is not None
        }
        for desk in self.far.values():
            desk.begin_stage.remote()

    async def note_here(self, lane: str, answered: int) -> bool:
        """`Desk.note` for a worker in this process."""
        return self.here.note(lane, answered)

    def answered(self) -> dict[str, int]:
        """Rows answered so far, by lane."""
        found = self.here.answered()
        if self.far:
            import ray

            for there in ray.get([desk.answered.remote() for desk in self.far.values()]):
                found |= there
        return found

    def stop(self, lane: str) -> None:
        """Let no further shard of a lane begin."""
        if lane in self.far:
            import ray

            ray.get(self.far[lane].stop.remote(lane))
        else:
            self.here.stop(lane)
