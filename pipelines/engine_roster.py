"""The engines of one teacher, in one place: started, counted, scaled with the work, and closed.

One small actor owns them. It outlives the stages and the workers that use them, so that an
engine's start-up is paid once for a run; every worker asks it twice a second which engines there
are. Workers also note there how far they are (`pipelines.desk`).
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import Any

import ray

from pipelines.desk import Desk
from pipelines.engine_start import EngineStart, StartedEngine

STATISTICS = ("startup", "useful", "idle", "requests", "tokens_in", "tokens_cached", "tokens_out")
"""What engines tell of themselves."""

POLL_SECONDS = 1.0
"""Between two looks at the engines."""

DRAIN_SECONDS = 1.5
"""After which no worker has a list any more in which an engine stands that was taken off it."""


@dataclass
class _Place:
    """One engine on the roster."""

    started: StartedEngine
    ready: bool = False
    taken: bool = False
    """Nobody may call it: somebody has it alone, or it is about to be closed."""
    looked: float = 0.0
    """When its statistics were asked for last."""
    seen: dict[int, dict[str, float]] = field(default_factory=dict)
    """Its last statistics, by process: one that died counts with what it had used."""

    @property
    def actor(self) -> Any:
        return self.started.actor

    @property
    def open(self) -> bool:
        return self.ready and not self.taken

    @property
    def restarts(self) -> int:
        """Times that its process was another one than before."""
        return max(0, len(self.seen) - 1)


class EngineRoster:
    """The body of the roster's actor. Start it through `pipelines.engine_pool`."""

    def __init__(self, start: EngineStart) -> None:
        self._start = start
        self._bounds = start.teacher.replica_bounds
        self._places: dict[int, _Place] = {}
        self._started = 0
        self._closed: list[dict[str, float]] = []
        self._restarts = 0
        """Deaths of processes of engines that are closed or lost by now."""
        self._alone = asyncio.Lock()
        self._changing: asyncio.Task[None] | None = None
        self._can_grow = True
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        self._desk = Desk()

    async def start(self) -> None:
        """Start the least number of engines; returns when all of them can answer."""
        missing = self._bounds.min - len(self._places)
        await asyncio.gather(*(self._open_one() for _ in range(missing)))

    async def engines(self) -> dict[int, Any]:
        """By number, the engines that may be called now."""
        return {number: place.actor for number, place in self._places.items() if place.open}

    async def demand(self, rows: int, seconds_left: float) -> None:
        """Say how much work is left, so that there are as many engines as it can use.

        An engine more is started only where the work that is left would outlast its start. One is
        closed where the others can hold all rows that are left at once.

        Args:
            rows: That are not answered yet.
            seconds_left: In which the engines of now would answer them; infinite if unknown.
        """
        wanted = math.ceil(rows / self._start.rows_at_once)
        wanted = min(max(wanted, self._bounds.min), self._bounds.max)
        if self._changing is not None and not self._changing.done():
            return
        too_few = len(self._places) < self._bounds.min
        pays = wanted > len(self._places) and seconds_left > self._startup_seconds()
        if (too_few or pays) and self._can_grow:
            self._changing = asyncio.create_task(self._grow())
        elif wanted < len(self._places) and not self._alone.locked():
            self._changing = asyncio.create_task(self._close_one())

    async def alone(self) -> tuple[int, Any]:
        """An engine that nobody else calls until `release`; waits where others have one alone."""
        await self._alone.acquire()
        while not (free := [n for n, place in self._places.items() if place.open]):
            await asyncio.sleep(POLL_SECONDS)
        number = free[-1]
        place = self._places[number]
        place.taken = True
        await self._drain(place)
        return number, place.actor

    async def release(self, number: int) -> None:
        """Give an engine back to all."""
        if number in self._places:  # not lost meanwhile
            self._places[number].taken = False
        self._alone.release()

    async def lost(self, number: int) -> None:
        """Take an engine off the roster that does not come back."""
        if number in self._places:
            place = self._places.pop(number)
            place.started.give_back()
            self._closed += place.seen.values()
            self._restarts += place.restarts

    async def statistics(self) -> dict[str, float]:
        """Device-seconds by use, tokens and restarts of all engines since the first was started.

        Beside them, how many engines there are now.
        """
        await asyncio.gather(*(self._look(place) for place in self._places.values()))
        found = [*self._closed]
        for place in self._places.values():
            found += place.seen.values()
        restarts = self._restarts + sum(place.restarts for place in self._places.values())
        sums = {key: sum(one[key] for one in found) for key in STATISTICS}
        return {**sums, "restarts": restarts, "engines": len(self._places)}

    async def size(self) -> int:
        """Engines that there are, those that still start included."""
        return len(self._places)

    async def processes(self) -> list[int]:
        """Ids of the engines' processes."""
        asked = [place.actor.process.remote() for place in self._places.values() if place.ready]
        return list(await asyncio.gather(*asked))

    async def forget_prompts(self) -> None:
        """Empty the engines' prefix caches."""
        asked = [p.actor.forget_prompts.remote() for p in self._places.values() if p.ready]
        await asyncio.gather(*asked)

    async def begin_stage(self) -> None:
        """Clear the desk for the workers of another stage."""
        self._desk.begin_stage()

    async def note(self, lane: str, answered: int) -> bool:
        """Note what a worker has answered; see `Desk.note`."""
        return self._desk.note(lane, answered)

    async def answered(self) -> dict[str, int]:
        """Rows that the stage's workers have answered, by lane."""
        return self._desk.answered()

    async def stop(self, lane: str) -> None:
        """Let no further shard of a lane begin."""
        self._desk.stop(lane)

    async def close(self) -> None:
        """Stop all engines."""
        self._watching.cancel()
        for place in self._places.values():
            place.started.close()
        self._places.clear()

    async def _grow(self) -> None:
        """Open one engine more; where that fails, go on with those that there are."""
        try:
            await self._open_one()
        except ray.exceptions.RayError:
            # Ray has logged why. To try again every second would only hold the devices.
            self._can_grow = False

    async def _open_one(self) -> None:
        number, self._started = self._started, self._started + 1
        place = self._places[number] = _Place(self._start.start(number))
        try:
            await back(place.actor)
        except ray.exceptions.RayError:
            self._places.pop(number).started.give_back()
            raise
        place.ready = True

    async def _close_one(self) -> None:
        number, place = max(self._places.items())
        place.taken = True
        if place.ready:
            await self._drain(place)
        ray.kill(place.actor)
        await self.lost(number)

    async def _drain(self, place: _Place) -> None:
        """Wait until nobody calls an engine any more."""
        await asyncio.sleep(DRAIN_SECONDS)
        while not await place.actor.rests.options(max_task_retries=-1).remote():
            await asyncio.sleep(POLL_SECONDS / 4)
        await self._look(place)

    async def _watch(self) -> None:
        """Keep the statistics fresh: what an engine used is known when it dies."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            old = time.monotonic() - POLL_SECONDS  # a stage that runs looks by itself
            stale = [place for place in self._places.values() if place.looked < old]
            await asyncio.gather(*(self._look(place) for place in stale))

    async def _look(self, place: _Place) -> None:
        if not place.ready:
            return
        place.looked = time.monotonic()
        try:
            found = await place.actor.statistics.remote()
        except ray.exceptions.RayError:
            return  # it died and is being started again; the last look counts
        place.seen[found.pop("process")] = found

    def _startup_seconds(self) -> float:
        seen = [one for place in self._places.values() for one in place.seen.values()]
        return max((one["startup"] for one in seen), default=0.0)


async def back(actor: Any) -> None:
    """Return when an engine can answer, however often it has to be started again for that."""
    await actor.process.options(max_task_retries=-1).remote()
