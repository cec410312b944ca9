"""How much of a bare torch loop's speed is left when a student is trained by Stillhouse.

    python benchmarks/training.py                    everything, some 30 minutes on two cores
    python benchmarks/training.py --pairs 1          a look
    python benchmarks/training.py --only encoder

Both arms train the same model in float32 on the same rows in the same order, in the same batches
with the same padding, by AdamW with clipping and a schedule: Stillhouse by its real stage, with Ray
Train, our loop, metrics, notes and checkpoints; the bare loop (`bare_training.py`) in a process of
its own, which knows nothing of Stillhouse. The rate is rows over the time of the steps after the
first three, so start-up is apart, and so are the last checkpoint and the export. Each arm is a
process started anew, in turns and each pair in the other order. Medians of pairs count.

encoder    all-MiniLM (22M) with a head for five classes; the process that trains has one core and
           one thread, everything else the other core: at least 0.97 of the bare loop. With two
           threads and both cores shared it is printed without a bar.
causal     SmolLM2-135M on headlines in its chat template, in the same way.
deepspeed  ZeRO 2 with two workers of a core each, all else on the same cores: DeepSpeed under Ray
           beside DeepSpeed by its own launcher, without a bar.
padding    What training would feed of several kinds of rows, in batches of 8, 32 and 128 to 1, 2
           and 8 workers: at most 5% of the tokens. CommonsenseQA is left out where
           recipes/cqa_palm/prepare.py has not written it.

Prints a line with its figures for each, writes benchmarks/results/training.json, and exits 1
where a bar does not hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# This file has the name of a package of ours, which is to be found first.
sys.path.insert(0, str(Path(__file__).parents[1]))

import ray
from local_ray import start_ray
from padding import shares
from training_arms import Run, TrainingArms

from core.recipe_section import Device
from core.recipe_students import Student, Train

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "training.json"
BAR = 0.97
PADDING_BAR = 0.05
PAIRS_WITHOUT_BAR = 3
"""At most, of what is printed without a bar."""

ENCODER = Student(
    model="embedded://all-minilm-l6-v2",
    train=Train(epochs=2, batch_size=16, max_length=64, validation_share=0),
)
CAUSAL = Student(
    family="causal",
    model="embedded://smollm2-135m-instruct",
    train=Train(epochs=1, batch_size=8, max_length=128, validation_share=0),
)
ROWS = {"encoder": 640, "causal": 96}

Found = dict[str, Any]


def on_cores(student: Student, cores: int, **changed: object) -> Student:
    """The same student with so many threads."""
    device = Device(kind="cpu-core", cpus=cores)
    return student.model_copy(
        update={"train": student.train.model_copy(update={"device": device, **changed})}
    )


def interleaved(arms: TrainingArms, pairs: int, *, apart: bool) -> Found:
    """Pairs of turns, each pair in the other order."""
    found: dict[str, list[Run]] = {"bare": [], "stillhouse": []}
    for pair in range(pairs):
        for arm in ("bare", "stillhouse") if pair % 2 == 0 else ("stillhouse", "bare"):
            found[arm].append(getattr(arms, arm)(apart=apart))
    rates = {arm: [run.rows_per_second for run in runs] for arm, runs in found.items()}
    each = [s / b for s, b in zip(rates["stillhouse"], rates["bare"], strict=True)]
    padding = found["stillhouse"][0].facts["padding_share"]
    return {**rates, "ratios": each, "median_ratio": statistics.median(each), "padding": padding}


def tell(what: str, found: Found) -> None:
    """One line on a ratio."""
    print(
        f"{what}: {found['median_ratio']:.3f} of the bare loop (median of {len(found['ratios'])} "
        f"pairs; {statistics.median(found['bare']):.1f} rows/s bare); "
        f"{found['padding']:.1%} padding",
        flush=True,
    )


def one_worker(student: Student) -> Callable[[Path, int], Found]:
    """A part with one worker, cores apart and shared."""

    def measure(folder: Path, pairs: int) -> Found:
        found: Found = {}
        for cores in ("apart", "shared"):
            apart = cores == "apart"
            own = on_cores(student, 1 if apart else 2)
            arms = TrainingArms(folder / cores, own, ROWS[student.family])
            number = pairs if apart else min(pairs, PAIRS_WITHOUT_BAR)
            found[f"cores {cores}"] = interleaved(arms, number, apart=apart)
            tell(f"{student.family}, cores {cores}", found[f"cores {cores}"])
        found["holds"] = (
            found["cores apart"]["median_ratio"] >= BAR
            and found["cores apart"]["padding"] <= PADDING_BAR
        )
        return found

    return measure


def deepspeed(folder: Path, pairs: int) -> Found:
    """Two workers of ZeRO 2, under Ray and under DeepSpeed's launcher."""
    found = {}
    for student in (ENCODER, CAUSAL):
        own = on_cores(student, 1, workers=2, zero_stage=2)
        arms = TrainingArms(folder / student.family, own, ROWS[student.family])
        one = interleaved(arms, min(pairs, PAIRS_WITHOUT_BAR), apart=False)
        tell(f"{student.family}, ZeRO 2 with two workers", one)
        found[student.family] = one
    return found


def padding(_: Path, __: int) -> Found:
    """What is padded, of several kinds of rows."""
    found: Found = shares()
    for kind, one in found.items():
        print(
            f"{kind}: {one['most']:.1%} padding at most; a batch of 32 rows goes through the "
            f"model in {one['passes']:.2f} passes",
            flush=True,
        )
    return {**found, "holds": all(one["most"] <= PADDING_BAR for one in found.values())}


PARTS: dict[str, Callable[[Path, int], Found]] = {
    "encoder": one_worker(ENCODER),
    "causal": one_worker(CAUSAL),
    "deepspeed": deepspeed,
    "padding": padding,
}


def main() -> int:
    """Run the parts, print and write the figures; 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    start_ray()
    parts = [options.only] if options.only else list(PARTS)
    found = {}
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            found[part] = PARTS[part](Path(folder), options.pairs)
    ray.shutdown()
    held = {part: one["holds"] for part, one in found.items() if "holds" in one}
    print(", ".join(f"{part}: {'holds' if h else 'MISSED'}" for part, h in held.items()))
    if options.pairs >= 5:  # a part that runs alone takes its place among the others
        before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept = {part: {**before, **found}.get(part) for part in PARTS}
        RESULTS.write_text(json.dumps(kept, indent=2) + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
