"""The stage that serves teacher and student side by side and measures both on the same requests."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from core.errors import UseError, WorkError
from core.recipe_serving import Compare, RequestLimits, Serve
from core.rows import PREDICTION, REJECTED
from core.stage import Progress, StageContext, StageResult
from core.teacher import Engine
from serving.application import Endpoint
from serving.compared import Compared, Row
from serving.figures import figures, merge, rate_figures
from serving.load import Load, LoadGenerator, LoadResult
from serving.meter import CompareMeter

TURNS = 4
"""Of each model, one after the other, so that a noisy minute of the machine hits both alike."""

SHARES = (0.25, 0.5, 0.75, 0.9)
"""Of what a model answers in the closed loop: the rates of its open loops, where none are given."""

LEAST_ARRIVALS = 20
"""Requests of an open loop at least: fewer tell nothing of a percentile."""

NO_LIMITS = RequestLimits(body_bytes=2**30, inputs=10**6, characters=10**9, choices=10**6)
"""The rows are ours, and a teacher's prompt may be long."""

SHARD = "answers"
"""Key of the one shard that the stage commits."""

ROLES = ("teacher", "student")


@dataclass(frozen=True)
class Sides:
    """The two that are compared, with the rows that both are asked about."""

    compared: Mapping[str, Compared]
    """By role: `teacher` and `student`."""
    rows: Sequence[Row]
    """Task rows, in the order in which they are asked."""
    others: Sequence[Row]
    """To warm up with."""


def compare(
    context: StageContext, compared: Mapping[str, Compared], rows: Sequence[Row]
) -> StageResult:
    """The part of a comparison that is the same in every method.

    Args:
        context: Of the stage, with the settings `teacher` and `student`, names in the recipe;
            `compare`, a `core.recipe_serving.Compare` as a dictionary; `seed` of the rows' order
            and of the arrivals.
        compared: By role.
        rows: Task rows; those with an answer are asked.

    Raises:
        UseError: No row has an answer.
        WorkError: A model does not load, or answers no request of a turn.
    """
    settings = Compare.model_validate(context.settings["compare"])
    asked, others = choose_rows(rows, settings.requests, context.settings["seed"])
    sides = Sides(compared, asked, others)
    teacher = context.engine(context.settings["teacher"])
    serve = measured_settings(context.recipe.training_recipe.serve)
    with (
        CompareMeter(context, teacher, context.settings["student"]) as meter,
        LoadGenerator(context.logs / "load.log") as generator,
        ExitStack() as served,
    ):
        endpoints = {}
        for role in ROLES:
            name = f"compare-{context.recipe.recipe.name}-{role}"
            endpoints[role] = compared[role].deploy(serve, name, context.logs / "serve")
            served.callback(endpoints[role].close)
        meter.ready()
        measuring = Measuring(context, settings, sides, endpoints, generator, teacher, meter)
        closed = measuring.closed_loop()
        open_ = measuring.open_loops(closed)
    facts, predictions = _evaluate(sides, closed, open_, settings)
    table = pa.Table.from_pylist(predictions, schema=PREDICTION)
    context.stage.commit_shard(SHARD, table, REJECTED.empty_table())
    return StageResult([SHARD], table.num_rows, facts=facts)


def measured_settings(settings: Serve) -> Serve:
    """A recipe's section `serve`, as far as it says what a request costs.

    Its port may be in use by an endpoint that stays, and its keys are for callers. The number of
    replicas is fixed, so that figures are of one state; nothing is turned away.
    """
    return settings.model_copy(
        update={
            "host": "127.0.0.1",
            "port": 0,
            "replicas": max(1, settings.scale.min),
            "max_queued": 100_000,
            "timeout_seconds": 600.0,
            "api_keys": None,
            "tracing": None,
            "log_texts": False,
            "limits": NO_LIMITS,
        }
    )


def choose_rows(rows: Sequence[Row], requests: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Pick labelled rows in an order fixed by the seed.

    Returns:
        The rows to ask, and the others, to warm up with; the same rows where no others are left.

    Raises:
        UseError: No row has an answer.
    """
    labelled = [row for row in rows if row["answer"] is not None]
    if not labelled:
        raise UseError(
            "the evaluation rows",
            "none of them has an answer to compare with.",
            "Label some rows of the evaluation file.",
        )
    random.Random(seed).shuffle(labelled)  # noqa: S311, an order and no secret
    return labelled[:requests], labelled[requests:] or labelled


def split(rows: Sequence[Row], parts: int) -> Iterator[Sequence[Row]]:
    """Cut into parts of nearly equal length, in order; none of them is empty."""
    parts = min(parts, len(rows))
    for part in range(parts):
        yield rows[len(rows) * part // parts : len(rows) * (part + 1) // parts]


@dataclass(frozen=True)
class Measuring:
    """The loads of a comparison."""

    context: StageContext
    settings: Compare
    sides: Sides
    endpoints: Mapping[str, Endpoint]
    generator: LoadGenerator
    teacher: Engine
    meter: CompareMeter
    loads: Iterator[int] = field(default_factory=itertools.count)

    def closed_loop(self) -> dict[str, LoadResult]:
        """Both models on all rows, in turns, a fixed number in flight: what each can do."""
        turns: dict[str, list[LoadResult]] = {role: [] for role in ROLES}
        done = 0
        for part in split(self.sides.rows, TURNS):
            for role in ROLES:
                result = self._measure(role, part, concurrency=self.settings.concurrency)
                turns[role].append(result)
                done += len(part)
                self._show(done)
            self.meter.turn(turns["teacher"][-1], turns["student"][-1])
        return {role: merge(results) for role, results in turns.items()}

    def open_loops(self, closed: Mapping[str, LoadResult]) -> dict[str, list[LoadResult]]:
        """Both models at several rates, whether or not they keep up."""
        found: dict[str, list[LoadResult]] = {role: [] for role in ROLES}
        rates = {role: self._rates(closed[role]) for role in ROLES}
        done = 2 * len(self.sides.rows)
        for number in range(len(rates["teacher"])):
            for role in ROLES:
                rate = rates[role][number]
                wanted = max(LEAST_ARRIVALS, round(rate * self.settings.seconds_per_rate))
                result = self._measure(role, self._repeated(wanted), rate=rate)
                found[role].append(result)
                done += wanted
                self._show(done)
            self.meter.turn(found["teacher"][-1], found["student"][-1])
        return found

    def _rates(self, closed: LoadResult) -> list[float]:
        if self.settings.rates is not None:
            return self.settings.rates
        most = len(closed.answered) / closed.wall_seconds
        return [share * most for share in SHARES]

    def _repeated(self, wanted: int) -> list[Row]:
        """So many rows: the first, and again from the begin where there are not enough."""
        rows = self.sides.rows
        return [rows[number % len(rows)] for number in range(wanted)]

    def _measure(self, role: str, rows: Sequence[Row], **load: Any) -> LoadResult:
        """Ask about other rows first, so that what all prompts begin with is cached, and no more.

        Users' prompts are new to an engine, and these rows were asked on it before: the teacher's
        forgets them, and a student's is told that this is a load of its own.
        """
        self.teacher.forget_prompts()
        number, warm = next(self.loads), self.sides.others[: self.settings.concurrency]
        self._send(role, warm, number, concurrency=self.settings.concurrency)
        return self._send(role, rows, number, **load)

    def _send(
        self,
        role: str,
        rows: Sequence[Row],
        number: int,
        *,
        rate: float | None = None,
        concurrency: int | None = None,
    ) -> LoadResult:
        compared, endpoint = self.sides.compared[role], self.endpoints[role]
        load = Load(
            endpoint.url,
            [compared.request(row, number) for row in rows],
            rate=rate,
            concurrency=concurrency,
            objective_ms=self.settings.objective_ms,
            seed=self.context.settings["seed"],
        )
        result = self.generator.send(endpoint, load)
        if not result.answered:
            raise WorkError(
                f"{role} {compared.name}",
                f"it answered no request; the first said: {result.replies[0].error}.",
                f"Serve's logs are in {self.context.logs / 'serve'}.",
            )
        return result

    def _show(self, done: int) -> None:
        # How many the open loops will be is known only after the closed one.
        self.context.show(Progress(done, max(done, 2 * len(self.sides.rows)), "requests"))


def _evaluate(
    sides: Sides,
    closed: Mapping[str, LoadResult],
    open_: Mapping[str, Sequence[LoadResult]],
    settings: Compare,
) -> tuple[dict[str, Any], list[Row]]:
    """The figures of both models, and their predictions."""
    facts: dict[str, Any] = {
        "concurrency": settings.concurrency,
        "turns": TURNS,
        "objective_ms": settings.objective_ms,
    }
    predictions: list[Row] = []
    for role, result in closed.items():
        compared = sides.compared[role]
        answered = [
            (row, reply)
            for row, reply in zip(sides.rows, result.replies, strict=True)
            if not reply.error
        ]
        facts[role] = {
            "name": compared.name,
            "model": compared.model,
            **figures(
                result,
                [rate_figures(one) for one in open_[role]],
                compared.device,
                compared.replicas,
                correct=sum(compared.right(row, reply) for row, reply in answered),
                objective_ms=settings.objective_ms,
            ),
        }
        told = [compared.prediction(row, reply) for row, reply in answered]
        predictions += [row for row in told if row is not None]
    facts["cpu_ratio"] = (
        facts["student"]["cpu_seconds_per_thousand"] / facts["teacher"]["cpu_seconds_per_thousand"]
    )
    return facts, predictions
