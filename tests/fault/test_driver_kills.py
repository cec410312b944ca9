"""SIGKILL to the driver in every kind of stage; the same command then finishes, paying once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.leftovers import leftovers, marked

ROOT = Path(__file__).parents[2]
ROWS = 96
SHARD_ROWS = 8
IN_FLIGHT = 4  # pipelines.shards.SPARE_SHARDS: the rows on their way fit one shard
MARK, ENVIRONMENT = marked()

RECIPE = """\
name: killed
method: fewshot_mcqa
shard_rows: {shard_rows}
task:
  instruction: Each headline goes to one news desk.
  question_name: Headline
  answer_name: News desk
  choices: [business, health, politics, sports, technology]
  examples: {recipes}/demo/examples.jsonl
  evaluation: evaluation.jsonl
teachers:
  tiny:
    model: {teacher}
    engine:
      {{dtype: float32, max_model_len: 512, max_num_seqs: 4, block_size: 32, enforce_eager: true}}
    device: {{kind: cpu-core, cpus: 1}}
generate:
  teacher: tiny
  decomposed: {{rows: {rows}, sampling: {{max_tokens: 24}}}}
curate:
  min_words: 1
score:
  teacher: tiny
select:
  agree: false
students:
  encoder:
    model: {encoder}
    train: {{min_steps: 600, batch_size: 4, learning_rate: 1.0e-4, checkpoint_every: 20}}
compare: {{requests: 20, concurrency: 4}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_teacher, tiny_encoder) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    evaluation = (ROOT / "recipes/demo/evaluation.jsonl").read_text().splitlines()[:30]
    (folder / "evaluation.jsonl").write_text("\n".join(evaluation))
    (folder / "recipe.yaml").write_text(
        RECIPE.format(
            shard_rows=SHARD_ROWS,
            rows=ROWS,
            recipes=ROOT / "recipes",
            teacher=tiny_teacher,
            encoder=tiny_encoder,
        )
    )
    return folder / "recipe.yaml"


def start(recipe: Path, run: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "stillhouse.command_line", "run", str(recipe), "--run", str(run)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_when(driver: subprocess.Popen, ready: Callable[[], bool], seconds: float = 240) -> None:
    """SIGKILL a driver as soon as something is true."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert driver.poll() is None, f"ended before it was killed:\n{driver.communicate()[0]}"
        assert time.monotonic() < deadline, "nothing to kill at"
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()


def shards(run: Path, stage: str) -> dict[str, tuple[bytes, int]]:
    """A stage's committed files, with content and time of the last change."""
    files = sorted((run / "stages" / stage).glob("*/rows/[!.]*.parquet"))
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def done(run: Path, stage: str) -> bool:
    return bool(list((run / "stages" / stage).glob("*/manifest.json")))


def ids(run: Path, stage: str) -> list[str]:
    """Ids of a stage's rows and rejected rows."""
    found = []
    for kind in ("rows", "rejected"):
        for file in (run / "stages" / stage).glob(f"*/{kind}/*.parquet"):
            found += pq.read_table(file, columns=["id"])["id"].to_pylist()
    return found


def requests(run: Path, stage: str) -> int:
    """Requests that all attempts at a stage have made, as far as the ledger knows."""
    return sum(
        json.loads(file.read_text())["requests"] for file in (run / "ledger").glob(f"{stage}.*")
    )


def checkpointed_step(run: Path) -> int:
    """Step of the latest checkpoint that a training would go on from; 0 where there is none."""
    for file in (run / "stages/train-encoder").glob("*/checkpoints/*/checkpoint_manager_*.json"):
        try:
            latest = json.loads(file.read_text())["latest_checkpoint_result"]
        except json.JSONDecodeError:  # being written
            return 0
        return int(latest["checkpoint_dir_name"].removeprefix("checkpoint_")) if latest else 0
    return 0


@pytest.mark.slow
def test_kills_in_generation_scoring_and_training_cost_only_what_was_in_flight(recipe, tmp_path):
    run = tmp_path / "run"

    kill_when(start(recipe, run), lambda: len(shards(run, "write")) >= 3)
    written = shards(run, "write")
    assert not done(run, "write")

    kill_when(start(recipe, run), lambda: len(shards(run, "score")) >= 3)
    assert done(run, "write")
    assert {name: shards(run, "write")[name] for name in written} == written, "touched again"
    scored = shards(run, "score")
    assert not done(run, "score")

    kill_when(start(recipe, run), lambda: checkpointed_step(run) > 0)
    assert done(run, "score")
    assert {name: shards(run, "score")[name] for name in scored} == scored, "touched again"

    last = start(recipe, run)
    output, _ = last.communicate(timeout=400)
    assert last.returncode == 0, output
    assert "Traceback" not in output

    for stage in ("write", "score"):
        found = ids(run, stage)
        assert len(found) == len(set(found)), f"{stage} has duplicates"
    assert len(ids(run, "write")) == ROWS
    cleaned = ids(run, "clean")
    kept = {
        row["id"]
        for file in (run / "stages" / "clean").glob("*/rows/*.parquet")
        for row in pq.read_table(file, columns=["id"]).to_pylist()
    }
    (scores,) = (run / "stages" / "score").glob("*/rows")
    items = pq.read_table(scores, columns=["item"])
    assert set(items["item"].to_pylist()) == kept
    assert len(cleaned) == len(set(cleaned))
    # One attempt was killed in each of the two; what it had in flight was asked again.
    assert requests(run, "write") <= ROWS + IN_FLIGHT * SHARD_ROWS
    (trained,) = (run / "stages" / "train-encoder").glob("*/manifest.json")
    (step,) = json.loads(trained.read_text())["facts"]["resumed"]
    assert step >= 20, "the training began anew"
    assert (run / "report.html").stat().st_size > 10_000

    before = {path: path.stat().st_mtime_ns for path in (run / "stages").rglob("*.*")}
    again = start(recipe, run)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0, output
    assert "Everything was done already" in output
    assert {path: path.stat().st_mtime_ns for path in (run / "stages").rglob("*.*")} == before
    assert not leftovers(MARK, seconds=60)
