"""The stage that serves teacher and student side by side and measures both on the same requests."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from core.errors import UseError, WorkError
from core.recipe_serving import Serve
from core.rows import PREDICTION, REJECTED
from core.stage import Progress, StageContext, StageResult
from core.teacher import Engine
from serving.application import Endpoint, deploy
from serving.encoder import encoder_student
from serving.figures import answered, figures, merge
from serving.load import LoadResult, Reply, send
from serving.meter import CompareMeter
from serving.teacher import ChoicePrompt, PromptedTeacher

TURNS = 4
"""Of each model, one after the other, so that a noisy minute of the machine hits both alike."""

SHARD = "answers"
"""Key of the one shard that the stage commits."""

Row = dict[str, Any]


def compare(context: StageContext) -> StageResult:
    """Stage: both models behind one proxy, the same rows to both, and what came back.

    Settings: `student` and `teacher`, names in the recipe; `requests`, rows to ask at most;
    `concurrency`, requests in flight; `seed` of the rows' order; `teacher_prompt`, a
    `serving.teacher.ChoicePrompt`.
    Inputs: `student`, whose folder holds the model in `student/`; `evaluation`, task rows.

    Raises:
        UseError: The student's choices are not the task's, or no evaluation row has an answer.
        WorkError: A model does not load, or answers no request of a turn.
    """
    settings = context.settings
    recipe = context.recipe.student_recipe
    rows, others = choose_rows(
        context.inputs["evaluation"].read().to_pylist(), settings["requests"], settings["seed"]
    )
    student = encoder_student(
        context.inputs["student"].folder.child("student").location, recipe.task.choices
    )
    engine = context.engine(settings["teacher"])
    prompt: ChoicePrompt = settings["teacher_prompt"]
    teacher = PromptedTeacher(
        engine, prompt.prompt, prompt.labels, prompt.offsets, tuple(recipe.task.choices)
    )
    with CompareMeter(context, engine, settings["student"]) as meter, ExitStack() as served:
        endpoints = {}
        for role, model in (("teacher", teacher), ("student", student)):
            endpoints[role] = deploy(
                {role: model},
                measured_settings(recipe.serve),
                name=f"compare-{recipe.name}-{role}",
                logs=context.logs / "serve",
            )
            served.callback(endpoints[role].close)
        meter.ready()
        results = _measure(context, endpoints, meter, engine=engine, rows=rows, others=others)
    facts, predictions = _evaluate(context, engine, results, rows)
    table = pa.Table.from_pylist(predictions, schema=PREDICTION)
    context.stage.commit_shard(SHARD, table, REJECTED.empty_table())
    return StageResult([SHARD], table.num_rows, facts=facts)


def measured_settings(settings: Serve) -> Serve:
    """A recipe's section `serve`, as far as it says what a request costs.

    Its port may be in use by an endpoint that stays, and its keys are for callers. The number of
    replicas is fixed, so that figures are of one state.
    """
    return settings.model_copy(
        update={
            "host": "127.0.0.1",
            "port": 0,
            "replicas": max(1, settings.scale.min),
            "api_keys": None,
            "tracing": None,
            "log_texts": False,
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
            "Label some rows of task.evaluation.",
        )
    random.Random(seed).shuffle(labelled)  # noqa: S311, an order and no secret
    return labelled[:requests], labelled[requests:] or labelled


def split(rows: Sequence[Row], parts: int) -> Iterator[Sequence[Row]]:
    """Cut into parts of nearly equal length, in order; none of them is empty."""
    parts = min(parts, len(rows))
    for part in range(parts):
        yield rows[len(rows) * part // parts : len(rows) * (part + 1) // parts]


def prediction_rows(rows: Sequence[Row], replies: Sequence[Reply], model: str) -> list[Row]:
    """Rows of `core.rows.PREDICTION` from the requests that were answered."""
    return [
        {
            "id": row["id"],
            "model": model,
            "question": row["question"],
            "choices": row["choices"],
            "answer": row["answer"],
            "predicted": row["choices"].index(reply.label),
            "probabilities": [reply.probabilities[choice] for choice in row["choices"]],
            "difficulty": row["difficulty"],
        }
        for row, reply in zip(rows, replies, strict=True)
        if reply.probabilities is not None
    ]


def _measure(
    context: StageContext,
    endpoints: Mapping[str, Endpoint],
    meter: CompareMeter,
    *,
    engine: Engine,
    rows: Sequence[Row],
    others: Sequence[Row],
) -> dict[str, LoadResult]:
    """Send both models the same rows, in turns."""
    concurrency = context.settings["concurrency"]
    warm_up = [row["question"] for row in others[:concurrency]]
    turns: dict[str, list[LoadResult]] = {"teacher": [], "student": []}
    for part in split(rows, TURNS):
        questions = [row["question"] for row in part]
        for role, results in turns.items():
            # Users' prompts are new to an engine; these rows were scored on it before.
            engine.forget_prompts()
            result = send(
                endpoints[role], role, questions, concurrency=concurrency, warm_up=warm_up
            )
            if not answered(result.replies):
                raise WorkError(
                    f"{role} {context.settings[role]}",
                    f"it answered no request; the first said: {result.replies[0].error}.",
                    f"Serve's logs are in {context.logs / 'serve'}.",
                )
            results.append(result)
            done = sum(len(turn.replies) for results in turns.values() for turn in results)
            context.show(Progress(done, 2 * len(rows), "requests"))
        meter.turn(turns["teacher"][-1], turns["student"][-1])
    return {role: merge(results) for role, results in turns.items()}


def _evaluate(
    context: StageContext, engine: Engine, results: dict[str, LoadResult], rows: Sequence[Row]
) -> tuple[dict[str, Any], list[Row]]:
    """The figures of both models, and their predictions."""
    serve = context.recipe.student_recipe.serve
    held = {
        "teacher": (engine.device, engine.replicas),
        "student": (serve.device, measured_settings(serve).scale.max),
    }
    models = {"teacher": engine.model, "student": context.settings["student"]}
    facts: dict[str, Any] = {"concurrency": context.settings["concurrency"], "turns": TURNS}
    predictions: list[Row] = []
    for role, result in results.items():
        predicted = prediction_rows(rows, result.replies, context.settings[role])
        correct = sum(row["predicted"] == row["answer"] for row in predicted)
        facts[role] = {
            "name": context.settings[role],
            "model": models[role],
            **figures(result, *held[role], correct),
        }
        predictions += predicted
    facts["cpu_ratio"] = (
        facts["student"]["cpu_seconds_per_thousand"] / facts["teacher"]["cpu_seconds_per_thousand"]
    )
    return facts, predictions
