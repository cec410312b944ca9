"""How fast soft labels are, beside scoring every label as a text of its own.

    python benchmarks/scoring.py             five pairs each of 4 and of 8 choices
    python benchmarks/scoring.py --pairs 1   a look

The rows are headlines of the demonstration's evaluation set behind its few-shot prompt, and the
choices the words of 4 or 8 news desks, in one prompt and without calibration. One running engine
(SmolLM2-135M on vLLM, one core) is asked in turns, in an order that alternates, and each turn has
the same rows go through `run_shards`:

- labels: the stage's own work, one prefill a row with the log-probabilities of all labels;
- sequences: one `score_text` for each label, all in flight at once, the label's tokens summed.

The rate is rows over the time from the first question that reaches the engine to the last answer
that leaves it; the prefix cache is emptied before each turn. Sequences cannot read that cache, as
vLLM has no log-probabilities of cached tokens; labels can, and all prompts begin with the same
examples. What that alone is worth is seen in a third arm without a bar, labels that do not read it.

Prints a line with its figures, writes benchmarks/results/scoring.json, and exits 1 where, for K
choices, the median ratio of the pairs is below 0.8 K or fewer than 99% of all rows have the same
first choice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from bare_stage import bare_stage
from local_ray import start_ray

from core.models import model_folder
from core.recipe import StudentRecipe, Task
from core.recipe_file import load_recipe
from core.recipe_section import Device
from core.recipe_teachers import Teacher
from core.rows import SCORED, TASK
from core.teacher import Usage
from pipelines.engine import VLLMEngine
from pipelines.engine_pool import EnginePool, start_engines
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.label_prompts import LabelPrompts
from pipelines.row_work import RowWork
from pipelines.scoring import ScoreChoices, plan_scores
from pipelines.shards import Lane, run_shards
from pipelines.tasks import parse_rows
from stillhouse.methods import recipe_model

ROOT = Path(__file__).parents[1]
MODEL = "embedded://smollm2-135m-instruct"
DESKS = "business health politics sports technology science travel culture".split()  # noqa: SIM905
BAR = 0.8
"""Of the number of choices."""
SAME = 0.99
ROWS = 20
SHARD_ROWS = 8
ARMS = ("labels", "labels, nothing cached", "sequences")


class TimedEngine(VLLMEngine):
    """An engine that knows when it was busy, and that can do without its prefix cache."""

    first = 0.0
    last = 0.0
    reads_cache = True

    async def _generate(self, tokens: list[int], parameters: Any) -> Any:
        if not self.reads_cache:
            parameters.skip_reading_prefix_cache = True
        self.first = self.first or time.monotonic()
        output = await super()._generate(tokens, parameters)
        self.last = time.monotonic()
        return output

    async def begin(self, *, reads_cache: bool) -> None:
        """Start a lap."""
        self.first = self.last = 0.0
        self.reads_cache = reads_cache

    async def lap(self) -> float:
        """Seconds from the first question to the last answer."""
        return self.last - self.first


@dataclass(frozen=True)
class ScoreSequences:
    """The other way to a row of the same kind: each label is a text after the prompt."""

    prompts: LabelPrompts
    engine: EnginePool
    choices: list[str]

    schema = SCORED

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Ask for each label's log-probability."""
        (prompt,) = self.prompts.ask(row["question"], self.choices)
        scores = await asyncio.gather(
            *(self.engine.score_text(prompt.text, label) for label in prompt.labels)
        )
        logprobs = [sum(score.logprobs) for score in scores]
        return {
            **row,
            "teacher": self.engine.teacher,
            "choices": self.choices,
            "logprobs": logprobs,
            "calibrated": logprobs,
            "usage": asdict(sum((score.usage for score in scores), Usage())),
        }


class Arms:
    """A running engine, asked in all ways."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        teacher = Teacher(
            model=MODEL,
            engine={
                "dtype": "float32",
                "max_model_len": 512,
                "max_num_seqs": 16,
                "block_size": 32,
                "enforce_eager": True,
            },
            device=Device(kind="cpu-core", cpus=1),
        )
        self.pool = start_engines(
            "bench", teacher, model_folder(MODEL), 0, folder, engine=TimedEngine
        )
        self._actor = next(iter(ray.get(self.pool.roster.engines.remote()).values()))
        self._runs = 0

    def run(self, arm: str, prompts: LabelPrompts, rows: pa.Table) -> tuple[float, dict[str, int]]:
        """Rows per second, and the first choice of each row."""
        choices = prompts.prompts.task.choices
        work: RowWork = ScoreChoices(prompts, self.pool, "bench", choices, [0.0] * len(choices))
        if arm == "sequences":
            work = ScoreSequences(prompts, self.pool, choices)
        self.pool.forget_prompts()
        ray.get(self._actor.begin.remote(reads_cache=arm == "labels"))
        self._runs += 1
        context = bare_stage(self._folder / f"run-{self._runs}", self.pool, SHARD_ROWS)
        self.pool.accounted = self.pool.statistics()
        result = run_shards(context, [Lane(self.pool, plan_scores(rows, {}), work)])
        assert result.rows == rows.num_rows
        seconds: float = ray.get(self._actor.lap.remote())
        found = [context.stage.rows.read_table(f"{key}.parquet") for key in result.shards]
        first = {
            row["item"]: int(np.argmax(row["logprobs"]))
            for row in pa.concat_tables(found).to_pylist()
        }
        return result.rows / seconds, first


def task_of(choices: int) -> Task:
    """The demonstration's task with that many desks."""
    recipe = load_recipe(ROOT / "recipes" / "demo.yaml", recipe_model).recipe
    assert isinstance(recipe, StudentRecipe)
    return recipe.task.model_copy(update={"choices": DESKS[:choices]})


def rows_of(task: Task, name: str) -> list[dict[str, Any]]:
    """Rows of a file beside the recipe that go to one of the task's desks."""
    return parse_rows(ROOT / "recipes" / name, task)[0]


def measure(arms: Arms, choices: int, pairs: int, rows: int) -> dict[str, Any]:
    """Interleaved pairs of other rows each, in an order that alternates."""
    task = task_of(choices)
    prompts = LabelPrompts(FewshotPrompts(task, rows_of(task, task.examples)), orders=1)
    headlines = rows_of(task, task.evaluation)
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    same: list[bool] = []
    for pair in range(pairs):
        part = headlines[rows * pair : rows * (pair + 1)]
        table = pa.Table.from_pylist(part, schema=TASK)
        first = {}
        for arm in ARMS if pair % 2 == 0 else ARMS[::-1]:
            rate, first[arm] = arms.run(arm, prompts, table)
            found[arm].append(rate)
        same += [first["labels"][row["id"]] == first["sequences"][row["id"]] for row in part]
    return {
        "rows_per_second": found,
        "rows": len(same),
        "same_first_choice": sum(same) / len(same),
        "ratio": median_ratio(found["labels"], found["sequences"]),
        "ratio_nothing_cached": median_ratio(found["labels, nothing cached"], found["sequences"]),
    }


def median_ratio(one: list[float], other: list[float]) -> float:
    """Median over the pairs."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def main() -> int:
    """Run the pairs, print and write the figures; 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=ROWS, help="in each turn")
    options = parser.parse_args()
    start_ray()
    found: dict[str, Any] = {}
    held: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        arms = Arms(Path(folder))
        measure(arms, 4, 1, SHARD_ROWS)  # warms up
        for choices in (4, 8):
            one = found[f"{choices} choices"] = measure(arms, choices, options.pairs, options.rows)
            bar = BAR * choices
            held[f"{choices} choices"] = one["ratio"] >= bar and one["same_first_choice"] >= SAME
            rates = one["rows_per_second"]
            print(
                f"{choices} choices: labels {one['ratio']:.1f} times as fast as sequences (bar "
                f"{bar:.1f}; {one['ratio_nothing_cached']:.1f} with nothing cached; median of "
                f"{options.pairs} pairs of {options.rows} rows; "
                f"{statistics.median(rates['labels']):.2f} and "
                f"{statistics.median(rates['sequences']):.2f} rows/s), the same first choice on "
                f"{one['same_first_choice']:.1%} of {one['rows']} rows",
                flush=True,
            )
        arms.pool.close()
    ray.shutdown()
    print(", ".join(f"bar {k}: {'holds' if h else 'MISSED'}" for k, h in held.items()))
    if options.pairs >= 5 and options.rows >= ROWS:
        results = ROOT / "benchmarks" / "results"
        results.mkdir(exist_ok=True)
        text = json.dumps({**found, "bars": held}, indent=2)
        (results / "scoring.json").write_text(text + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
