"""The report of a run, whatever its method: the page, its twin for machines, and the summary."""

from __future__ import annotations

from typing import Any

from rich.console import Group

from core.recipe import StudentRecipe
from core.run import Run
from stillhouse.report.data import to_json
from stillhouse.workflow import recipe_of


def write_report(run: Run) -> tuple[str, Group]:
    """Write report.html and report.json into a run.

    Returns:
        The page's place, and what the terminal shows.
    """
    data, page, summary = _made(run)
    run.folder.write("report.json", to_json(data).encode())
    run.folder.write("report.html", page.encode("utf-8", "backslashreplace"))
    return f"{run.folder.location}/report.html", summary


def _made(run: Run) -> tuple[Any, str, Group]:
    if isinstance(recipe_of(run).recipe, StudentRecipe):
        from stillhouse.gather import gather
        from stillhouse.report.page import render
        from stillhouse.summary import summary

        student = gather(run)
        return student, render(student), summary(student)
    from stillhouse.data_summary import data_summary
    from stillhouse.gather_teacher_data import gather_teacher_data
    from stillhouse.report.teacher_data_page import render_teacher_data

    data = gather_teacher_data(run)
    return data, render_teacher_data(data), data_summary(data, run)
