"""A teacher's engines as its users see them: whom to ask, and what to do when an engine dies.

A question goes to the engine with the fewest open ones from this process. Where an engine dies,
what it was asked is asked again once; what was in flight at two deaths is suspected of having
caused them and is asked apart, in halves, until the questions that kill are found.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from core.errors import StillhouseError, UseError, WorkError
from core.recipe_section import Device
from core.recipe_teachers import Teacher
from core.teacher import Completion, EngineKilled, LabelScores, Sampling, SequenceScore
from pipelines.beside_driver import actor_beside_driver
from pipelines.engine import VLLMEngine
from pipelines.engine_roster import EngineRoster, back
from pipelines.engine_start import EngineStart, environment_of, secrets_of

REFRESH_SECONDS = 0.5
"""Age at which the list of engines is asked for again."""

LIVES = 2
"""Deaths of engines after which a question is a suspect: the first may be the machine's fault."""

GATHER_SECONDS = 1.0
"""In which the suspects of one death come together."""

KILLERS = 3
"""Questions in a row that kill even alone, after which it is the engine that is at fault."""

ROSTER_CALLS = 10_000


@dataclass
class EnginePool:
    """Running engines of a teacher; implements `core.teacher.Engine`.

    Copies of a pool that travel to other processes use the same engines.
    """

    teacher: str
    model: str
    roster: Any
    rows_at_once: int
    """Rows that all engines together work on at once, at their greatest number."""
    device: Device
    """What one engine holds."""
    accounted: dict[str, float] = field(default_factory=dict)
    _engines: dict[int, Any] = field(default_factory=dict)
    _refreshed: float = -1.0
    _open_calls: Counter[int] = field(default_factory=Counter)
    _down: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    _suspects: _Suspects | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.teacher, self.model, self.roster, self.rows_at_once, self.device)
        return type(self), parts

    @property
    def desk(self) -> Any:
        """Where workers note how far they are."""
        return self.roster

    @property
    def replicas(self) -> int:
        """Engines that run side by side now."""
        return int(ray.get(self.roster.size.remote()))

    async def complete(self, prompt: str, sampling: Sampling) -> Completion:
        """Write on from a prompt."""
        answer: Completion = await self._ask("complete", prompt, sampling)
        return answer

    async def score_labels(self, prompt: str, labels: list[str]) -> LabelScores:
        """Score single-token labels as the next token after a prompt."""
        answer: LabelScores = await self._ask("score_labels", prompt, labels)
        return answer

    async def score_text(self, prompt: str, text: str) -> SequenceScore:
        """Score a text of any length after a prompt."""
        answer: SequenceScore = await self._ask("score_text", prompt, text)
        return answer

    def demand(self, rows: int, seconds_left: float) -> None:
        """Say how much work is left; see `EngineRoster.demand`."""
        self.roster.demand.remote(rows, seconds_left)

    def statistics(self) -> dict[str, float]:
        """Device-seconds by use and tokens, summed over the engines, since they were started."""
        found: dict[str, float] = ray.get(self.roster.statistics.remote())
        return found

    def forget_prompts(self) -> None:
        """Empty the engines' prefix caches."""
        ray.get(self.roster.forget_prompts.remote())

    def processes(self) -> list[int]:
        """Ids of the engines' processes, where they run on this machine."""
        return list(ray.get(self.roster.processes.remote()))

    async def disconnect(self) -> None:
        """Nothing belongs to an event loop: Ray holds the connections."""

    def close(self) -> None:
        """Stop the engines."""
        ray.get(self.roster.close.remote())
        ray.kill(self.roster)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        for _ in range(LIVES):
            number, engine = await self._least_busy()
            self._open_calls[number] += 1
            try:
                return await getattr(engine, method).remote(*arguments)
            except ray.exceptions.RayTaskError as error:
                raise getattr(error, "cause", error) from None
            except ray.exceptions.RayActorError:
                await self._wait_for(number, engine)
            finally:
                self._open_calls[number] -= 1
        if self._suspects is None:
            self._suspects = _Suspects(self.teacher, self.roster)
        return await self._suspects.ask(method, arguments)

    async def _least_busy(self) -> tuple[int, Any]:
        while True:
            if time.monotonic() - self._refreshed > REFRESH_SECONDS:
                self._refreshed = time.monotonic()  # first, so that only one call asks
                self._engines = await self.roster.engines.remote()
            up = [number for number in self._engines if number not in self._down]
            if up:
                number = min(up, key=self._open_calls.__getitem__)
                return number, self._engines[number]
            if not self._down and not await self.roster.size.remote():
                raise _all_gone(self.teacher, "none is left")
            await asyncio.sleep(REFRESH_SECONDS / 2)

    async def _wait_for(self, number: int, engine: Any) -> None:
        """Leave a dead engine alone until it is back."""
        if number not in self._down:
            self._down[number] = asyncio.ensure_future(self._return_of(number, engine))
        await self._down[number]

    async def _return_of(self, number: int, engine: Any) -> None:
        try:
            await back(engine)
        except ray.exceptions.RayActorError as error:
            await self.roster.lost.remote(number)
            if not await self.roster.size.remote():
                raise _all_gone(self.teacher, first_cause(error)) from error
            self._engines.pop(number, None)
        finally:
            del self._down[number]


@dataclass
class _Suspects:
    """Questions that were in flight whenever an engine died, asked on an engine of their own."""

    teacher: str
    roster: Any
    _waiting: list[_Suspect] = field(default_factory=list)
    _work: asyncio.Task[None] | None = None
    _killers: int = 0
    """Found since a question was answered last."""

    async def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """The answer to a question.

        Raises:
            EngineKilled: It kills the engine even alone.
        """
        suspect = _Suspect(method, arguments, asyncio.get_running_loop().create_future())
        self._waiting.append(suspect)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._ask_all())
        return await suspect.answer

    async def _ask_all(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        number, engine = await self.roster.alone.remote()
        group: list[_Suspect] = []
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._halve(engine, group)
        except ray.exceptions.RayError as error:
            fault = _all_gone(self.teacher, first_cause(error))
            for suspect in (*group, *self._waiting):
                suspect.fail(fault)
            self._waiting = []
        finally:
            await self.roster.release.remote(number)

    async def _halve(self, engine: Any, group: list[_Suspect]) -> None:
        """Ask a group that holds a killer, in two halves."""
        middle = (len(group) + 1) // 2
        for half in (group[:middle], group[middle:]):
            if half:
                await self._ask_together(engine, half)

    async def _ask_together(self, engine: Any, group: list[_Suspect]) -> None:
        asked = (getattr(engine, one.method).remote(*one.arguments) for one in group)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        left = []
        for suspect, answer in zip(group, answers, strict=True):
            if isinstance(answer, ray.exceptions.RayActorError):
                left.append(suspect)
            elif isinstance(answer, BaseException):
                suspect.fail(getattr(answer, "cause", answer))
            else:
                suspect.answer.set_result(answer)
                self._killers = 0
        if not left:
            return
        await back(engine)
        if len(group) > 1:
            await self._halve(engine, left)
            return
        self._killers += 1
        left[0].fail(self._blame())

    def _blame(self) -> Exception:
        if self._killers < KILLERS:
            return EngineKilled()
        return WorkError(
            f"teacher {self.teacher}",
            f"its engine died on {self._killers} questions in a row, each asked alone.",
            "It is the engine that fails: see what vLLM said in the run's logs/.",
        )


@dataclass
class _Suspect:
    """A question that waits for its answer."""

    method: str
    arguments: tuple[Any, ...]
    answer: asyncio.Future[Any]

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def start_engines(
    name: str,
    teacher: Teacher,
    folder: Path,
    seed: int,
    logs: Path,
    *,
    adapter: Path | None = None,
    engine: type = VLLMEngine,
) -> EnginePool:
    """Start a teacher's engines and wait until the least number of them can answer.

    Args:
        name: The teacher's name in the recipe.
        teacher: Its section of the recipe.
        folder: The model's folder.
        seed: Of the run.
        logs: Folder for vLLM's output.
        adapter: Folder of a LoRA adapter that is put on the model.
        engine: The body of an engine's actor.

    Raises:
        UseError: An engine does not start.
    """
    start = EngineStart(
        name=name,
        teacher=teacher,
        folder=folder,
        adapter=adapter,
        seed=seed,
        logs=logs,
        environment=environment_of(teacher),
        secrets=secrets_of(teacher),
        engine=engine,
    )
    roster = actor_beside_driver(EngineRoster, max_concurrency=ROSTER_CALLS).remote(start)
    try:
        ray.get(roster.start.remote())
    except ray.exceptions.RayError as error:
        ray.kill(roster)
        raise _does_not_start(name, logs, error) from error
    at_once = start.rows_at_once * teacher.replica_bounds.max
    return EnginePool(name, teacher.model, roster, at_once, teacher.device)


def _does_not_start(name: str, logs: Path, error: Exception) -> StillhouseError:
    return UseError(
        f"teachers.{name}",
        f"its engine does not start: {first_cause(error)}",
        f"Check model, engine and device; what vLLM said is in {logs}/engine-{name}-*.log.",
    )


def _all_gone(teacher: str, cause: str) -> WorkError:
    return WorkError(
        f"teacher {teacher}",
        f"its engines died and do not come back: {cause}",
        "The run's logs/ have what vLLM said. What was committed is safe.",
    )


def first_cause(error: Exception) -> str:
    """The last line of the innermost error, which is where libraries say what is wrong."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1].strip()[:300]
