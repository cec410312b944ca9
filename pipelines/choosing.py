"""The choice of how teachers are asked, by what they answer to rows that nothing is judged on.

2410.18588, equations 3 to 5: M = 1/|E| sum over i of m(y_i, T(p(x_i); theta)); first the sampling
theta, then the prompt p. An answer that cannot be read, or that never came, counts as 0.

Which rows E is, the paper leaves open. Here no evaluation row is among them: what was chosen by a
row cannot be judged by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from core.errors import WorkError
from core.recipe_answers import AnswerTask
from core.recipe_selection import AS_ASKED
from core.rows import CANDIDATE, INPUT
from core.run import StageFolder, count_by_reason
from core.stage import StageContext, StageResult
from pipelines.plan import sample_rows
from pipelines.questions import Questions, each
from pipelines.row_work import Rejection, Row, rejected_table


def selection_rows(context: StageContext) -> StageResult:
    """Stage: the rows that candidates are compared on.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `rows`, how many.
    Inputs: `inputs`, input rows to draw from; `evaluation`, the evaluation rows, if there are any.

    Raises:
        WorkError: Not one row can be used.
    """
    questions = Questions(AnswerTask.model_validate(context.settings["task"]))
    evaluation = context.inputs.get("evaluation")
    judged = {row["id"] for row in each(evaluation)} if evaluation else set()
    rejections: list[tuple[str, Rejection]] = []

    def sound() -> Iterator[Row]:
        for row in each(context.inputs["inputs"]):
            if row["id"] in judged:
                told = "it is an evaluation row too, which must not choose"
                rejections.append((row["id"], Rejection("evaluation-row", told, row)))
                continue
            question = questions.to_be_judged(row)
            if isinstance(question, Rejection):
                rejections.append((row["id"], question))
            else:
                yield row

    rows = sample_rows(sound(), context.settings["rows"])
    if not rows:
        raise WorkError(
            "the rows to choose by",
            "not one of them can be asked and judged.",
            "Give select rows of its own, with right answers where the metric needs them.",
        )
    rejected = rejected_table(context.stage.stage, rejections)
    context.stage.commit_shard("rows", pa.Table.from_pylist(rows, schema=INPUT), rejected)
    return StageResult(["rows"], len(rows), count_by_reason(rejected))


def choose(context: StageContext) -> StageResult:
    """Stage: the best candidate of each teacher, with the scores of all.

    Settings: `candidates`, by name and teacher: what is chosen with it; `arms`, by name and
    teacher: what it is called in what it wrote.
    Inputs: `rows`, the rows that were asked about; `before`, an earlier choice that this one goes
    on from: its best is the candidate `core.recipe_selection.AS_ASKED` here, with its score;
    `scored`, scores of what was written, where the measure is no comparison with a right answer;
    all others: what the candidates wrote.
    """
    settings = context.settings
    rows = len({row["id"] for row in each(context.inputs["rows"])})
    means = {arm: sum(values) / rows for arm, values in _values(context).items()}
    before = _facts(context, "before")
    table: list[Row] = []
    chosen: dict[str, Any] = {}
    best: dict[str, float] = {}
    for teacher in settings["teachers"]:
        scores = {AS_ASKED: before["best"][teacher]} if before else {}
        for name, arms in settings["arms"].items():
            scores[name] = means.get(arms[teacher], 0.0)
        name = max(scores, key=lambda one: scores[one])  # of equals the first
        best[teacher] = scores[name]
        chosen[teacher] = {
            **(before["chosen"][teacher] if before else {}),
            **settings["candidates"][name][teacher],
        }
        table += [
            {"candidate": one, "teacher": teacher, "score": score, "chosen": one == name}
            for one, score in scores.items()
        ]
    rejected = rejected_table(context.stage.stage, [])
    context.stage.commit_shard("rows", pa.Table.from_pylist(table, schema=CANDIDATE), rejected)
    return StageResult(["rows"], len(table), {}, {"chosen": chosen, "best": best, "rows": rows})


def chosen_of(context: StageContext) -> dict[str, Any]:
    """By teacher: what was chosen for a stage; empty where nothing was to be."""
    found: dict[str, Any] = _facts(context, "chosen").get("chosen", {})
    return found


def _facts(context: StageContext, role: str) -> dict[str, Any]:
    if role not in context.inputs:
        return {}
    manifest = context.inputs[role].manifest()
    assert manifest is not None, "the workflow runs the stages in their order"
    return manifest.facts


def _values(context: StageContext) -> dict[str, list[float]]:
    """By arm: how good each of its answers is; those that are not there are 0."""
    if "scored" in context.inputs:
        return _scored(context.inputs["scored"])
    found: dict[str, list[float]] = defaultdict(list)
    for role, folder in context.inputs.items():
        if role not in ("rows", "before"):
            for row in folder.read(["model", "right"]).to_pylist():
                found[row["model"]].append(float(row["right"]))
    return found


def _scored(folder: StageFolder) -> dict[str, list[float]]:
    """By arm: entity densities, or the mean rating of each row's replies."""
    by_row: dict[tuple[str, str], list[float]] = defaultdict(list)
    for table in folder.iter_shards():
        for row in table.to_pylist():
            score = row["score"] if "score" in row else row["rating"]
            by_row[row["model"], row.get("item", row["id"])].append(score)
    found: dict[str, list[float]] = defaultdict(list)
    for (model, _), listed in by_row.items():
        found[model].append(sum(listed) / len(listed))
    return found
