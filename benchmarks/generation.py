"""How much of the bare engine's speed is left when rows go through Stillhouse.

    python benchmarks/generation.py                     everything, some 35 minutes on two cores
    python benchmarks/generation.py --pairs 1           a look
    python benchmarks/generation.py --only two-replicas

Both arms use the same running engines (SmolLM2-135M on vLLM's async engine) in turns: bare, by
`asyncio.gather` over `AsyncLLM.generate` in the engine's own process; and through Stillhouse, by
planning rows on disk, Ray Data's workers, the engine pool and committed shards. The rate is output
tokens over the time from the first question that reaches an engine to the last answer that leaves
one, so start-up is apart. The prefix cache is emptied before each turn. Medians of pairs count.

one-replica   The engine's core process has one core and one thread, everything else the other core:
              at least 0.97 of the bare engine, with fixed and with skewed lengths of the answers.
              The same with both cores shared is printed without a bar.
ray-data-llm  `ray.data.llm` as it comes beside the bare engine, fixed lengths, shared cores; no bar
two-replicas  Two engines with a core each, everything else on both: at least 0.95 of two bare
              engines side by side that have half of the prompts each, and neither engine writes
              less than 45% of the tokens.
autoscaling   `replicas: {min: 1, max: 2}` on work that outlasts an engine's start: the number of
              engines goes 1, 2, 1.

Prints a line with its figures for each, writes benchmarks/results/generation.json, and exits 1
where a bar does not hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import ray
from cores import pin, pin_all_others
from engine_arms import LENGTHS, MODEL, EngineArms, draw_prompts, rate
from local_ray import start_ray
from ray_data_llm import ray_data_llm

from core.recipe_section import Device
from core.recipe_teachers import Replicas, Teacher
from pipelines.engine_start import environment_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "generation.json"
ONE_BAR = 0.97
TWO_BAR = 0.95
SHARE_BAR = 0.45
PROMPTS = 96
TWO_PROMPTS = 720
"""For two engines: the start of the workers, and a batch more that one engine may have to do at the
end, are to be little beside the steady work."""
PAIRS_WITHOUT_BAR = 3
"""At most, of what is printed without a bar."""

Found = dict[str, Any]


def interleaved(
    arms: EngineArms, kind: str, pairs: int, prompts: int
) -> tuple[Found, list[list[int]]]:
    """Pairs of turns, each pair in the other order; and by pair, each engine's output tokens."""
    found: dict[str, list[float]] = {"bare": [], "stillhouse": []}
    tokens = []
    for pair in range(pairs):
        drawn = draw_prompts(kind, pair, prompts)
        for arm in ("bare", "stillhouse") if pair % 2 == 0 else ("stillhouse", "bare"):
            laps = getattr(arms, arm)(drawn)
            found[arm].append(rate(laps))
            if arm == "stillhouse":
                tokens.append([lap.tokens for lap in laps])
    return ratios(found), tokens


def ratios(found: dict[str, list[float]]) -> Found:
    """The pairs' ratios of the other arm to the bare one, and their median."""
    bare, other = found.values()
    each = [o / b for o, b in zip(other, bare, strict=True)]
    return {**found, "ratios": each, "median_ratio": statistics.median(each)}


def one_replica(folder: Path, pairs: int) -> Found:
    """One engine, cores apart and shared."""
    arms = EngineArms(folder, 1)
    arms.stillhouse(draw_prompts("fixed", 99, PROMPTS))  # the first pass warms up
    found: Found = {}
    (core,) = arms.core_processes()
    for cores in ("apart", "shared"):
        pin(core, {0} if cores == "apart" else {0, 1})
        pin_all_others(core, {1} if cores == "apart" else {0, 1})
        for kind in LENGTHS:
            number = pairs if cores == "apart" else min(pairs, PAIRS_WITHOUT_BAR)
            one, _ = interleaved(arms, kind, number, PROMPTS)
            found[f"{kind}, cores {cores}"] = one
            tell(f"{kind} lengths, cores {cores}", one, number)
    arms.pool.close()
    found["holds"] = all(
        found[f"{kind}, cores apart"]["median_ratio"] >= ONE_BAR for kind in LENGTHS
    )
    return found


def ray_data(folder: Path, pairs: int) -> Found:
    """Ray's own batch inference beside the bare engine, on shared cores."""
    arms = EngineArms(folder, 1)
    arms.bare(draw_prompts("fixed", 99, PROMPTS))
    environment = environment_of(Teacher(model=MODEL, device=Device(cpus=1)))
    pairs = min(pairs, PAIRS_WITHOUT_BAR)  # every dataset starts an engine of its own
    both: dict[str, list[float]] = {"bare": [], "ray.data.llm": []}
    for pair in range(pairs):
        drawn = draw_prompts("fixed", pair, PROMPTS)
        both["bare"].append(rate(arms.bare(drawn)))
        both["ray.data.llm"].append(rate([ray_data_llm(MODEL, drawn, environment)]))
    arms.pool.close()
    found = ratios(both)
    tell("ray.data.llm, fixed lengths, cores shared", found, pairs)
    return found


def two_replicas(folder: Path, pairs: int) -> Found:
    """Two engines side by side."""
    arms = EngineArms(folder, 2)
    arms.stillhouse(draw_prompts("fixed", 99, PROMPTS))  # Ray Data starts helpers of its own, too
    for number, core in enumerate(arms.core_processes()):
        pin(core, {number})
    found: Found = {}
    for kind in LENGTHS:
        one, tokens = interleaved(arms, kind, pairs, TWO_PROMPTS)
        one["least_share"] = min(min(pair) / sum(pair) for pair in tokens)
        found[kind] = one
        tell(f"two replicas, {kind} lengths", one, pairs)
        print(f"  the less busy one wrote {one['least_share']:.1%} of the tokens, at least")
    arms.pool.close()
    found["holds"] = all(
        found[kind]["median_ratio"] >= TWO_BAR and found[kind]["least_share"] >= SHARE_BAR
        for kind in LENGTHS
    )
    return found


def autoscaling(folder: Path, _: int) -> Found:
    """A pool that grows and shrinks with the work."""
    arms = EngineArms(folder, Replicas(min=1, max=2))
    seen: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.25):
            seen.append(len(arms.actors()))

    watching = threading.Thread(target=look)
    watching.start()
    arms.stillhouse(draw_prompts("skewed", 0, 640))
    ended.wait(30)  # the last engine too many is drained before it is closed
    ended.set()
    watching.join()
    arms.pool.close()
    sizes = [size for size, _ in groupby(seen)]
    print(f"autoscaling: {' -> '.join(map(str, sizes))} engines", flush=True)
    return {"engines": sizes, "holds": sizes == [1, 2, 1]}


def tell(what: str, found: Found, pairs: int) -> None:
    """One line on a ratio."""
    print(
        f"{what}: {found['median_ratio']:.3f} of the bare engine (median of {pairs} pairs; "
        f"{statistics.median(found['bare']):.0f} output tokens/s bare)",
        flush=True,
    )


PARTS: dict[str, Callable[[Path, int], Found]] = {
    "one-replica": one_replica,
    "ray-data-llm": ray_data,
    "two-replicas": two_replicas,
    "autoscaling": autoscaling,
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
