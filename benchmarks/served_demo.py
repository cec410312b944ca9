"""The demonstration's student as it is served: what each backend answers, and a cascade with Gemma.

    python benchmarks/served_demo.py RUN      RUN is a finished one of recipes/demo.yaml; no Ray

**backends.** The student answers all evaluation rows by each backend of `serve.backend`: right
answers, rows with the same answer as in float32, and the largest difference of a probability.

**cascade.** What student and teacher have answered to these rows, put together: the curve from
all-student to all-teacher on the half of the rows that no threshold was chosen on, the threshold
that was chosen on the other half to be within one point of the teacher, and the least share that
has to be deferred for that on the judged half itself.

Writes benchmarks/results/served_demo.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np

# A neighbour of this file has the name of a package that it needs.
sys.path.remove(str(Path(__file__).parent))

from core.models import model_folder
from core.recipe_section import Device
from core.recipe_serving import Backend
from core.run import Folder, Run
from serving.answers import Question
from serving.backends import load_backend
from serving.cascade_curve import WITHIN, Cascade, Point
from serving.encoder import encoder_student
from serving.encoder_input import EncoderInput, softmax
from stillhouse.gather_cascade import cascade_of
from stillhouse.run_reader import RunReader

RESULTS = Path(__file__).parent / "results" / "served_demo.json"
STUDENT = "minilm"
ROWS = 32
"""Of a forward pass."""

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Deferred to the teacher: the points of the curve that are told."""


def main() -> None:
    """Print and keep the figures of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    reader = RunReader(Run(Folder(parser.parse_args().run)))
    found = {"backends": backends(reader), "cascade": deferring(reader)}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def backends(reader: RunReader) -> dict[str, dict[str, float]]:
    """Answers by backend, beside those of torch in float32."""
    trained = reader.finished[f"train-{STUDENT}"].folder.child("student").location
    rows = [row for row in reader.rows("evaluation") if row["answer"] is not None]
    student, folder = encoder_student(trained), model_folder(trained)
    assert student.choices is not None, "it has a head for classes"
    answer = [student.choices.index(row["choices"][row["answer"]]) for row in rows]
    found, exact = {}, None
    for backend in get_args(Backend):
        told = probabilities(backend, folder, student.choices, [row["question"] for row in rows])
        exact = told if exact is None else exact
        found[backend] = {
            "rows": len(rows),
            "right": float(np.mean(told.argmax(1) == answer)),
            "same": float(np.mean(told.argmax(1) == exact.argmax(1))),
            "difference": float(np.abs(told - exact).max()),
        }
        one = found[backend]
        print(
            f"{backend}: {one['right']:.1%} of {len(rows)} right, {one['same']:.1%} as in float32, "
            f"probabilities within {one['difference']:.4f}"
        )
    return found


def probabilities(
    backend: Backend, folder: Path, choices: tuple[str, ...], texts: list[str]
) -> np.ndarray:
    """What a backend says of the choices: [N, K]."""
    reads = EncoderInput(folder, choices)
    forward = load_backend(backend, folder, Device(), reads.names, reads_choices=False)
    sequences = [own[0] for own in reads.sequences([Question(text) for text in texts])]
    logits = [
        forward.logits(reads.batch(sequences[begin : begin + ROWS]))
        for begin in range(0, len(sequences), ROWS)
    ]
    return np.array([softmax(row) for row in np.concatenate(logits).tolist()])


def deferring(reader: RunReader) -> dict[str, Any]:
    """The cascade of the student and its best teacher."""
    both = cascade_of(reader, STUDENT)
    assert both is not None, "both have answered the evaluation rows"
    made, teacher = both
    least = close_enough(made)
    print(
        f"cascade with {teacher}: the student alone {made.student:.1%}, the teacher alone "
        f"{made.teacher:.1%} of {made.judged.rows} rows; the chosen threshold "
        f"{made.chosen.threshold:.3f} defers {made.judged.deferred:.1%} and has "
        f"{made.judged.accuracy:.1%} right; within a point of the teacher from "
        f"{least.deferred:.1%} deferred on"
    )
    told = [min(made.curve, key=lambda one: abs(one.deferred - share)) for share in SHARES]
    for point in told:
        print(f"  deferred {point.deferred:.1%}: {point.accuracy:.1%} right")
    kept = {**asdict(made), "curve": [asdict(point) for point in told]}
    return {"teacher_name": teacher, "least_deferred": least.deferred, **kept}


def close_enough(made: Cascade) -> Point:
    """The least that is deferred within a point of the teacher, on the judged rows."""
    return next(one for one in made.curve if one.accuracy >= made.teacher - WITHIN)


if __name__ == "__main__":
    main()
