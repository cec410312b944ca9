"""A run that is finished, made without Ray: manifests, rows, ledger, and a tiny real student."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from core.ledger import Entry, Ledger
from core.recipe_file import load_recipe
from core.rows import PREDICTION, REJECTED, TRAINING
from core.run import Folder, Manifest, Run
from stillhouse.methods import recipe_model
from stillhouse.workflow import Plan, Workflow, plan_run

RECIPE = """\
name: routing
method: fewshot_mcqa
seed: 7
prices: book.yaml
task:
  instruction: Say which desk.
  choices: [business, sports]
  examples: examples.jsonl
  evaluation: evaluation.jsonl
teachers:
  large: {model: TEACHER}
generate:
  teacher: large
  decomposed: {rows: 10}
score:
  teacher: large
students:
  encoder:
    model: BASE
    train: {epochs: 2, weight_decay: 0.0}
  second: {model: BASE}
"""
PRICES = "currency: EUR\ndevices:\n  cpu-core: {per_hour: 3.6, source: the contract}\n"
"""A thousandth of a euro for a second."""

RIGHT = {"large raw": 6, "large calibrated": 9, "encoder": 8, "second": 5}
"""How many of the ten evaluation rows each model answers rightly: the first ones."""

SERVED = {
    "requests": 20,
    "errors": 0,
    "device": "cpu-core",
    "devices": 1,
    "latency_ms": {"p50": 10.0, "p90": 20.0, "p95": 25.0, "p99": 30.0},
    "requests_per_second": 5.0,
    "rates": [
        {
            "rate": 4.0,
            "requests": 40,
            "errors": 0,
            "answered_per_second": 3.9,
            "good_per_second": 3.9,
            "latency_ms": {"p50": 8.0, "p90": 12.0, "p95": 15.0, "p99": 18.0},
            "cpu_seconds_per_thousand": 110.0,
        }
    ],
    "sustained_per_second": 4.0,
    "accuracy": 0.8,
    "cpu_seconds_per_thousand": 100.0,
    "path_cpu_seconds_per_thousand": 10.0,
}


def make_run(
    folder: Path, base: Path, teacher: str = "", *, without: tuple[str, ...] = (), **students: Path
) -> Run:
    """A run of two students, of which the first is compared with the teacher over HTTP.

    Args:
        folder: Where to make it, and its inputs.
        base: Folder of the model that both start from.
        teacher: The teacher's model; a folder of its own without a card if empty.
        without: Stages that are not done.
        students: Folders of trained students by name; each is copied into its stage.
    """
    inputs = folder / "inputs"
    (inputs / "unnamed").mkdir(parents=True)
    (inputs / "unnamed" / "config.json").write_text("{}")
    for name in ("examples.jsonl", "evaluation.jsonl"):
        (inputs / name).write_text('{"question": "Who won?", "answer": "sports"}\n')
    (inputs / "book.yaml").write_text(PRICES)
    text = RECIPE.replace("TEACHER", teacher or str(inputs / "unnamed")).replace("BASE", str(base))
    (inputs / "recipe.yaml").write_text(text)
    run = Run(Folder(str(folder / "run")))
    plan = plan_run(load_recipe(inputs / "recipe.yaml", recipe_model), run)
    Workflow(plan, display=None, stages=plan.stages)._write_state()
    for stage in plan.stages:
        if stage.name not in without:
            _finish(plan, stage.name)
    for name, student in students.items():
        target = plan.folder(f"train-{name}").folder.child("student")
        for file in student.iterdir():
            target.copy_in(file.name, file)
    ledger = Ledger(run.ledger)
    for stage, teacher_name, seconds in [
        ("write", "large", 1000),
        ("score", "large", 2000),
        ("score-evaluation", "large", 500),
        ("train-encoder", "", 1000),
    ]:
        work = plan.fingerprints[stage].work
        entry = Entry(stage, "a", "cpu-core", teacher=teacher_name, work=work)
        ledger.write(Entry(**{**vars(entry), "useful_seconds": seconds}))
    return run


def _finish(plan: Plan, name: str) -> None:
    rows = _rows(name)
    stage, made = plan.folder(name), plan.fingerprints[name]
    if rows is not None:
        stage.commit_shard("one", rows, REJECTED.empty_table())
    shards = [] if rows is None else ["one"]
    number = 10 if rows is None else rows.num_rows
    stage.commit(Manifest(name, made.whole, made.made_from, shards, number, {}, _facts(name)))


def _rows(stage: str) -> pa.Table | None:
    if stage == "select":
        sources = ["example", *["decomposed"] * 9]
        rows = [
            {"id": str(n), "question": "?", "choices": ["business", "sports"], "answer": n % 2}
            | {"logits": None, "weight": 1.0, "source": source}
            for n, source in enumerate(sources)
        ]
        return pa.Table.from_pylist(rows, schema=TRAINING)
    if stage.startswith("predict-") and not stage.endswith("alone"):
        name = stage.removeprefix("predict-")
        models = ["large raw", "large calibrated"] if name == "teacher" else [name]
        rows = [
            {"id": str(n), "model": model, "question": "?", "choices": ["business", "sports"]}
            | {"answer": 0, "predicted": int(n >= RIGHT[model]), "probabilities": [0.5, 0.5]}
            | {"difficulty": None}
            for model in models
            for n in range(10)
        ]
        return pa.Table.from_pylist(rows, schema=PREDICTION)
    return None


def _facts(stage: str) -> dict:
    if stage.startswith("train-"):
        return {"training_rows": 9, "validation_rows": 1, "steps": 20, "epochs": 2} | {
            "best_epoch": 1,
            "history": [{"epoch": 1, "train_loss": 0.5, "validation_loss": 0.4}],
        }
    if stage.startswith("compare-"):
        return {
            "concurrency": 8,
            "objective_ms": 1000.0,
            "teacher": {
                **SERVED,
                "name": "large",
                "device_seconds_per_thousand": 1000,
                "tokens_in": 2000,
                "tokens_cached": 1500,
                "tokens_out": 20,
            },
            "student": {
                **SERVED,
                "name": "encoder",
                "device_seconds_per_thousand": 200,
                "tokens_in": None,
                "tokens_cached": None,
                "tokens_out": None,
            },
        }
    return {}
