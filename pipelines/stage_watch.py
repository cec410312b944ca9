"""Watches a stage while its rows are answered: the ledger, the screen, and the reasons to stop."""

from __future__ import annotations

import math
import sys
import threading
import time
from dataclasses import dataclass, field, replace

from core.engine_entry import engine_entry
from core.errors import StillhouseError, WorkError
from core.ledger import Entry, money
from core.prices import recipe_prices
from core.stage import LaneProgress, Progress, StageContext
from core.teacher import Engine
from pipelines.desk import StageDesk
from pipelines.shard_worker import ShardReport

WATCH_SECONDS = 1.0
"""Between two looks."""

OVERLAP = 2
"""Rows that are on their way for every row that engines can work on at once. Answers of one length
end together: an engine then has a whole batch more to begin with."""

JUDGED_ROWS = 100
"""Answered rows from which the share of rejected ones is judged, or all where there are fewer."""

ROWS_PER_WORKER = 4096
"""Rows on their way that one worker process can look after."""


def rows_on_their_way(engine: Engine) -> int:
    """Rows that workers have put to an engine at most."""
    return engine.rows_at_once * OVERLAP


def workers_for(engine: Engine) -> int:
    """Workers that look after an engine's rows."""
    return math.ceil(rows_on_their_way(engine) / ROWS_PER_WORKER)


@dataclass
class LaneCount:
    """How far one teacher is."""

    engine: Engine
    total: int
    before: int
    """Committed by earlier attempts."""
    kept: int = 0
    rejected: int = 0
    answered: int = 0
    """By this attempt, committed or not."""
    found: int = 0
    """Of those, rows that an earlier plan had answered: they cost nothing."""
    lately: int = 0
    """Rows that were put to the engine and answered between the last two looks."""
    began: float = field(default_factory=time.monotonic)
    _looked: int = 0

    def look(self) -> None:
        """Note how many rows were answered since the last look."""
        self.lately, self._looked = max(0, self.asked - self._looked), self.asked

    @property
    def done(self) -> int:
        """Rows answered, by this attempt or committed by earlier ones."""
        return min(self.before + self.answered, self.total)

    @property
    def seconds_left(self) -> float:
        """At the rate of this attempt so far; infinite while it has none."""
        if not self.asked:
            return math.inf
        return (self.total - self.done) * (time.monotonic() - self.began) / self.asked

    @property
    def asked(self) -> int:
        """Rows that this attempt has put to the engine and that are answered."""
        return max(0, self.answered - self.found)


class StageWatch:
    """Looks once a second until the block ends.

    Start-up, and idle time since the stage before, fall to the stage that uses the engines next.
    """

    def __init__(self, context: StageContext, desk: StageDesk, lanes: dict[str, LaneCount]) -> None:
        self.verdict: StillhouseError | None = None
        """Why the whole stage was stopped."""
        self._context = context
        self._desk = desk
        self._lanes = lanes
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._metrics = _Metrics(context) if _ray_runs() else None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> StageWatch:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        try:
            for name, now in self._look().items():
                self._lanes[name].engine.accounted = now
        except Exception as error:
            # Where an error is on its way already, it tells of the engine's death.
            if kind is None or not _of_ray(error):
                raise

    def committed(self, report: ShardReport) -> None:
        """Note a shard that was committed."""
        lane, kept, rejected = report.lane, report.rows, report.rejected
        with self._lock:
            count = self._lanes[lane]
            count.kept += kept
            count.rejected += rejected
            count.found += report.found
            count.answered = max(count.answered, count.kept + count.rejected)
        if self._metrics is not None:
            self._metrics.committed(lane, kept, rejected)
        self._judge_rejected()

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_SECONDS):
            try:
                self._look()
            except StillhouseError as error:  # without a ledger there is no budget
                self._end_with(self.verdict or error)
                return
            except Exception as error:
                if not _of_ray(error):
                    raise
                return  # the loop over the shards meets it too, and tells it

    def _look(self) -> dict[str, dict[str, float]]:
        answered = self._desk.answered()
        statistics = {name: count.engine.statistics() for name, count in self._lanes.items()}
        entries, ahead = [], []
        for name, count in self._lanes.items():
            count.answered = max(count.answered, answered.get(name, 0))
            count.look()
            entry = self._entry(count, statistics[name])
            self._context.write_entry(entry)
            if self._metrics is not None:
                self._metrics.used(name, entry, statistics[name])
            entries.append(entry)
            ahead.append(self._ahead(entry, count))
            count.engine.demand(count.total - count.done, count.seconds_left)
        self._show(entries)
        if self.verdict is None:
            self._end_with(self._context.over_budget(ahead))
        return statistics

    def _entry(self, count: LaneCount, statistics: dict[str, float]) -> Entry:
        seconds = time.monotonic() - self._began
        return engine_entry(self._context, count.engine, statistics, count.kept, seconds)

    def _ahead(self, entry: Entry, count: LaneCount) -> Entry:
        """What stopping now would still take, at what the rows so far took."""
        # Beside the rows on their way, those of the shard that each worker has begun on, and as
        # many as were answered since the last look: the next one comes no sooner.
        shards = workers_for(count.engine) * self._context.recipe.recipe.shard_rows
        coming = rows_on_their_way(count.engine) + shards + count.lately
        rows = min(coming, count.total - count.done)
        share = rows / count.asked if count.asked else 0.0
        return replace(
            entry,
            tokens_in=round(entry.tokens_in * share),
            tokens_cached=round(entry.tokens_cached * share),
            tokens_out=round(entry.tokens_out * share),
            startup_seconds=0.0,
            useful_seconds=entry.useful_seconds * share,
            idle_seconds=0.0,
        )

    def _show(self, entries: list[Entry]) -> None:
        lanes = tuple(
            LaneProgress(name, count.done, count.total, entry)
            for (name, count), entry in zip(self._lanes.items(), entries, strict=True)
        )
        self._context.show(
            Progress(
                done=sum(lane.done for lane in lanes),
                total=sum(lane.total for lane in lanes),
                used=tuple(entries),
                lanes=lanes,
            )
        )

    def _judge_rejected(self) -> None:
        limit = self._context.recipe.recipe.max_rejected
        rejected = sum(count.rejected for count in self._lanes.values())
        answered = rejected + sum(count.kept for count in self._lanes.values())
        total = sum(count.total for count in self._lanes.values())
        if limit is None or self.verdict or answered < min(JUDGED_ROWS, total):
            return
        if rejected > limit * answered:
            self._end_with(
                WorkError(
                    f"stage '{self._context.stage.stage}'",
                    f"{rejected} of the first {answered} rows were rejected, more than the share "
                    f"of {limit:g} that max_rejected allows.",
                    f"{self._context.stage.rejected.location} has them with the reasons. Mend the "
                    "recipe, or raise max_rejected.",
                )
            )

    def _end_with(self, verdict: StillhouseError | None) -> None:
        if verdict is None:
            return
        self.verdict = verdict
        for name in self._lanes:
            self._desk.stop(name)


def _ray_runs() -> bool:
    """Whether this process has a cluster. Ray is not even loaded where no engine is asked."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _of_ray(error: Exception) -> bool:
    import ray

    return isinstance(error, ray.exceptions.RayError)


class _Metrics:
    """What a Prometheus that scrapes Ray sees of a stage; `cluster.dashboard` shows it."""

    def __init__(self, context: StageContext) -> None:
        from ray.util.metrics import Counter, Gauge

        tags = ("run", "stage", "teacher")
        self._tags = {"run": context.recipe.recipe.name, "stage": context.stage.stage}
        self._prices = recipe_prices(context.recipe)
        self._rows = Counter("stillhouse_rows", "Rows committed, by outcome.", (*tags, "outcome"))
        self._tokens = Gauge(
            "stillhouse_tokens",
            "Tokens of this attempt: in (cached ones among them), cached, and out.",
            (*tags, "direction"),
        )
        self._cost = Gauge("stillhouse_cost", "Money that this attempt has cost.", tags)
        self._row_cost = Gauge(
            "stillhouse_cost_per_thousand_rows", "The same for a thousand rows kept.", tags
        )
        self._device = Gauge(
            "stillhouse_device_seconds", "Device-seconds of this attempt, by use.", (*tags, "use")
        )
        self._engines = Gauge("stillhouse_engines", "Engines that there are.", tags)
        self._restarts = Gauge(
            "stillhouse_engine_restarts", "Deaths of engines' processes in this run.", tags
        )

    def committed(self, teacher: str, kept: int, rejected: int) -> None:
        for outcome, number in (("kept", kept), ("rejected", rejected)):
            if number:
                self._rows.inc(number, {**self._tags, "teacher": teacher, "outcome": outcome})

    def used(self, teacher: str, entry: Entry, statistics: dict[str, float]) -> None:
        tags = {**self._tags, "teacher": teacher}
        for direction in ("in", "cached", "out"):
            value = getattr(entry, f"tokens_{direction}")
            self._tokens.set(value, {**tags, "direction": direction})
        for use in ("startup", "useful", "idle"):
            self._device.set(getattr(entry, f"{use}_seconds"), {**tags, "use": use})
        for gauge, key in ((self._engines, "engines"), (self._restarts, "restarts")):
            if key in statistics:  # endpoints and records have no engines
                gauge.set(statistics[key], tags)
        cost = money(entry, self._prices)
        if cost is not None:  # an unknown price is no price of zero
            self._cost.set(cost, tags)
            if entry.rows:
                self._row_cost.set(1000 * cost / entry.rows, tags)
