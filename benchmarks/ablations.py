"""What each choice of the demonstration bought: the same runs with one choice changed.

    python benchmarks/demo.py                 first: the runs that this one starts from
    python benchmarks/ablations.py            five changes, three seeds: about half an hour

Every variant starts from a copy of a seed's run, so the teacher's rows are the same and only what
the change touches is done again. Prints each variant's accuracy and its difference from the recipe
as it is, over the same evaluation rows and seeds, and writes them to benchmarks/results. There is
no bar: this tells what a choice is worth.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from demo import ROOT, STUDENT, figure, line, right_answers

from core.run import Folder, Run

OBJECTIVE = "students.minilm.train.objective"
VARIANTS = {
    "all rows, agreed or not": ["select.agree=false"],
    "raw scores": ["score.scores=raw"],
    "hard labels of the teacher": [f"{OBJECTIVE}.temperature=0"],
    "soft labels at temperature 2": [f"{OBJECTIVE}.temperature=2"],
    "a tenth of the items": ["generate.decomposed.rows=64"],
}
NOT_COPIED = ("ledger", "logs", "checkpoints", ".lock")


def run_variant(seed_run: Path, folder: Path, seed: int, settings: list[str]) -> Run:
    """Do what a variant changes, in a copy of a seed's run, up to the student's answers."""
    if not folder.exists():
        part = folder.with_name(f".{folder.name}")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(seed_run, part, ignore=shutil.ignore_patterns(*NOT_COPIED))
        part.rename(folder)
    command = [sys.executable, "-m", "stillhouse.command_line", "run", "recipes/demo.yaml"]
    command += ["--run", str(folder), "--until", f"predict-{STUDENT}", "--update"]
    for setting in (f"seed={seed}", *settings):
        command += ["--set", setting]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return Run(Folder(str(folder)))


def main() -> int:
    """Run the variants, print and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--base", type=Path, default=ROOT / "runs" / "benchmark")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "ablations")
    options = parser.parse_args()
    seed_runs = [options.base / f"seed-{seed}" for seed in options.seeds]
    base = [right_answers(Run(Folder(str(run))))[STUDENT] for run in seed_runs]
    ids = sorted(base[0])

    def matrix(answers: list[dict[str, bool]]) -> np.ndarray:
        return np.array([[float(found[row]) for row in ids] for found in answers])

    as_it_is = matrix(base)
    found: dict[str, Any] = {
        "rows": len(ids),
        "seeds": options.seeds,
        "as it is": {"accuracy": figure(as_it_is)},
    }
    print(f"{'as it is':30}", line(figure(as_it_is)))
    for name, settings in VARIANTS.items():
        answers = []
        for seed, seed_run in zip(options.seeds, seed_runs, strict=True):
            folder = options.runs / name.replace(" ", "-").replace(",", "") / f"seed-{seed}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            answers.append(right_answers(run_variant(seed_run, folder, seed, settings))[STUDENT])
        changed = matrix(answers)
        found[name] = {
            "settings": settings,
            "accuracy": figure(changed),
            "difference": figure(changed - as_it_is),
        }
        print(f"{name:30}", line(figure(changed)))
        print(f"{'  less as it is':30}", line(figure(changed - as_it_is)), flush=True)
    results = ROOT / "benchmarks" / "results" / "ablations.json"
    results.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
