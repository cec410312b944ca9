"""CommonsenseQA: an encoder that learns PaLM-540B's answers, beside the same on the gold ones.

    python recipes/cqa_palm/prepare.py FOLDER     first: its text says where FOLDER comes from
    python benchmarks/cqa.py                      both kinds of labels, three seeds each
    python benchmarks/cqa.py --cells 1            the next training; the same command goes on

`stillhouse ablate` runs the variants of recipes/cqa_palm.yaml in runs/cqa. Once all cells are done,
this prints the figures, writes them to benchmarks/results, and exits 1 where a training, from its
start to the student's folder, took more than 30 minutes.

The interval of a mean over the seeds is a 95% bootstrap interval over the test rows, and says how
far other questions like these could differ; the spread over seeds says how far another training
could. The interval of the difference is over both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from demo import figure, line

from core.ledger import Ledger
from core.run import Folder, Run
from stillhouse.ablation_book import AblationBook, CellRecord, read_ablation
from stillhouse.right_answers import Right, right_answers

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cqa.json"
TEACHER, STUDENT = "palm", "minilm"
BAR_SECONDS = 30 * 60


def answers_of(run: Run, cell: CellRecord) -> Right:
    """By the test row's id, whether a cell's student is right."""
    stage = run.stage(f"predict-{STUDENT}", cell.works[f"predict-{STUDENT}"])
    return right_answers(stage.read().to_pylist())[STUDENT]


def training_of(run: Run, cell: CellRecord) -> dict[str, Any]:
    """What a cell's training was, and its seconds from its start to the student's folder."""
    work = cell.works[f"train-{STUDENT}"]
    manifest = run.stage(f"train-{STUDENT}", work).manifest()
    assert manifest is not None, "the cell is done"
    entries = [entry for entry in Ledger(run.ledger).entries() if entry.work == work]
    told = ("training_rows", "validation_rows", "epochs", "best_epoch", "padding_share")
    return {
        "labels": cell.variant,
        "seed": cell.seed,
        **{name: manifest.facts[name] for name in told},
        "rows_per_second": manifest.facts["samples_per_second"],
        "seconds": sum(entry.wall_seconds for entry in entries),
    }


def measure(run: Run, book: AblationBook) -> dict[str, Any]:
    """All figures."""
    answers = {(cell.variant, cell.seed): answers_of(run, cell) for cell in book.cells}
    rows = sorted(next(iter(answers.values())))

    def table(rights: list[Right]) -> np.ndarray:
        return np.array([[float(right[row]) for row in rows] for right in rights])

    teacher = run.finished_stages()["predict-teachers"].read().to_pylist()
    students = {
        variant.name: figure(table([answers[variant.name, seed] for seed in book.found.seeds]))
        for variant in book.found.variants
    }
    return {
        "rows": len(rows),
        "seeds": book.found.seeds,
        "teacher": figure(table([right_answers(teacher)[TEACHER]])),
        "students": students,
        "differences": {v.name: v.gap.__dict__ for v in book.found.variants if v.gap is not None},
        "trainings": [training_of(run, cell) for cell in book.cells],
    }


def main() -> int:
    """Run the cells that are left, print and write the figures; 1 where the bar does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--cells", type=int)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "cqa")
    options = parser.parse_args()
    command = [sys.executable, "-m", "stillhouse.command_line", "ablate", "recipes/cqa_palm.yaml"]
    command += ["--run", str(options.run)]
    if options.cells is not None:
        command += ["--cells", str(options.cells)]
    subprocess.run(command, cwd=ROOT, check=True)
    run = Run(Folder(str(options.run)))
    book = read_ablation(run)
    assert book is not None, "the command has written it"
    if book.found.done < book.found.cells:
        return 0
    found = measure(run, book)
    for name, values in {"the teacher": found["teacher"], **found["students"]}.items():
        print(f"{name:24}", line(values))
    slowest = max(training["seconds"] for training in found["trainings"])
    holds = slowest <= BAR_SECONDS
    print(
        f"slowest training (bar 30 minutes): {slowest / 60:.1f}: {'holds' if holds else 'MISSED'}"
    )
    RESULTS.write_text(json.dumps({**found, "bars": {"seconds": holds}}, indent=2) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
