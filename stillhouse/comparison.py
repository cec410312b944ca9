"""`stillhouse compare`: teacher and student over HTTP, and when the student has paid for itself."""

from __future__ import annotations

import json

from rich.console import Console, Group
from rich.table import Table

from core.errors import UseError
from core.run import Run
from stillhouse.display import RunDisplay
from stillhouse.gather_serving import economics, servings
from stillhouse.ray_session import DRIVER_LOG
from stillhouse.report.data import Economics, Serving, to_json
from stillhouse.report.wording import days, money, number, percent, requests
from stillhouse.reporting import write_report
from stillhouse.run_reader import RunReader
from stillhouse.workflow import (
    Workflow,
    logs_of,
    plan_run,
    prices_of,
    recipe_of,
    trained_student,
)


def compare_run(run: Run, student: str | None, *, again: bool = False) -> None:
    """Measure a student beside its teacher, where that is not done, and print what was found.

    Args:
        run: That made the student.
        student: Its name in the recipe; the first if absent.
        again: Whether to measure once more what is measured already.

    Raises:
        UseError: There is no such student, or nothing to compare it with.
        StillhouseError: What stopped the measurement.
    """
    name, _ = trained_student(run, student)
    plan = plan_run(recipe_of(run), run)
    stage = f"compare-{name}"
    if stage not in [one.name for one in plan.stages]:
        raise UseError(
            f"{run.folder.location}, {name}",
            "its recipe compares nobody: it has no section compare, or only recorded teachers.",
            "Add the section, with a teacher on vLLM or behind an endpoint, and run it again.",
        )
    if again and plan.done(stage) is not None:
        plan.folder(stage).folder.remove()
    display = RunDisplay(prices_of(run), run, logs_of(run) / DRIVER_LOG)
    with display.showing():
        Workflow(plan, display, plan.until(stage)).run()
    reader = RunReader(run)
    both, costs = servings(reader, name), economics(reader, name, reader.ancestors(f"train-{name}"))
    twin = json.loads(to_json(costs)), [json.loads(to_json(one)) for one in both]
    run.folder.write_json(f"{stage}.json", {"economics": twin[0], "models": twin[1]})
    path, _ = write_report(run)
    out = Console()
    out.print(comparison(both, costs))
    for place in (f"{run.folder.location}/{stage}.json", path):
        out.print(place, highlight=False, soft_wrap=True)


def comparison(both: list[Serving], costs: Economics) -> Group:
    """What was measured of both, and what follows from it."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for one in both:
        table.add_column(f"{one.role} {one.name}", justify="right")

    def row(label: str, words: list[str]) -> None:
        table.add_row(label, *words)

    row("right answers", [percent(one.accuracy) for one in both])
    row("p50 ms", [number(one.p50_ms) for one in both])
    row("p99 ms", [number(one.p99_ms) for one in both])
    row("requests a second", [number(one.requests_per_second) for one in both])
    objective = both[0].objective_ms
    row(
        f"a second, 95% under {number(objective)} ms",
        [
            "at no rate" if one.sustained_per_second is None else number(one.sustained_per_second)
            for one in both
        ],
    )
    row("prompt tokens a request", [number(one.tokens_in_per_request) for one in both])
    row("CPU-seconds a thousand", [number(one.cpu_seconds_per_thousand) for one in both])
    row("device-seconds a thousand", [number(one.device_seconds_per_thousand) for one in both])
    row("cost a thousand", [money(one.money_per_thousand, costs.currency) for one in both])
    return Group(table, "", _break_even(costs))


def _break_even(costs: Economics) -> str:
    made = f"Making the student cost {money(costs.making, costs.currency)}."
    if costs.break_even_requests is None:
        return f"{made} When it has paid for itself is unknown: a price is missing."
    told = requests(costs.break_even_requests)
    if costs.break_even_requests == float("inf"):
        return f"{made} A request on it costs no less: it never pays for itself."
    traffic = f"{costs.requests_per_day:,} requests a day"
    return (
        f"{made} It has paid for itself after {told} requests, "
        f"which is {days(costs.break_even_days)} at {traffic}."
    )
