"""SIGKILL to driver, engine and node of a two-node cluster, by the number of committed shards."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.leftovers import leftovers, marked

ROOT = Path(__file__).parents[2]
ROWS = 2_000
SHARD_ROWS = 20
SHARDS = ROWS // SHARD_ROWS
IN_FLIGHT = 8  # pipelines.shards.SPARE_SHARDS for each of the two that hold the rows on their way
TARGETS = ("driver", "node", "engine", "driver", "node", "engine core")

ACTOR = "ray::VLLMEngine"
CORE = "VLLM::EngineCore"
OURS = re.compile(r"VLLM::|ray::(VLLMEngine|EngineRoster|Desk|MapWorker)")

RECIPE = """\
name: killed
method: teacher_data
shard_rows: {shard_rows}
inputs: {{file: rows.jsonl}}
teachers:
  tiny:
    model: {teacher}
    engine:
      dtype: float32
      max_model_len: 128
      max_num_seqs: 16
      block_size: 32
      enforce_eager: true
      enable_log_requests: true
    device: {{kind: cpu-core, cpus: 1}}
ask:
  tiny:
    prompt: "Headline: {{{{ question }}}}"
    sampling: {{max_tokens: 6}}
"""


class Nodes:
    """The cluster, and one node of it that can be killed and replaced."""

    def __init__(self) -> None:
        self.mark, environment = marked()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray_nodes"],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.environment = {**environment, "RAY_ADDRESS": self._told()}

    def _told(self) -> str:
        return self._process.stdout.readline().strip()

    def kill_one(self) -> None:
        """SIGKILL the node with all cores, and put another in its place."""
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()
        assert self._told() == "replaced"

    def processes(self, title: str) -> list[int]:
        """Ids of processes by what their titles begin with."""
        return [
            process
            for process, command in leftovers(self.mark, 0).items()
            if command.startswith(title)
        ]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.close()
    assert not leftovers(nodes.mark, seconds=60)


@pytest.fixture
def recipe(tmp_path, tiny_teacher) -> Path:
    rows = (json.dumps({"question": f"Number {n} of the day"}) for n in range(ROWS))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    text = RECIPE.format(shard_rows=SHARD_ROWS, teacher=tiny_teacher)
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path / "recipe.yaml"


class Driver:
    """`stillhouse run` of a recipe in the cluster, which can be killed and started again."""

    def __init__(self, nodes: Nodes, recipe: Path, run: Path) -> None:
        self._nodes, self._recipe, self._run = nodes, recipe, run
        self.start()

    def start(self, *options: str) -> None:
        command = [sys.executable, "-m", "stillhouse.command_line", "run", str(self._recipe)]
        self._process = subprocess.Popen(
            [*command, "--run", str(self._run), *options],
            cwd=ROOT,
            env=self._nodes.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def wait_until(self, ready: Callable[[], bool], seconds: float = 300) -> None:
        """Wait while it goes on."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert self._process.poll() is None, f"it ended:\n{self._process.communicate()[0]}"
            assert time.monotonic() < deadline, "it hangs"
            time.sleep(0.01)

    def end(self, *, status: int = 0, seconds: float = 300) -> str:
        output, _ = self._process.communicate(timeout=seconds)
        assert self._process.returncode == status, output
        assert "Traceback" not in output
        return output


def committed(run: Path) -> list[Path]:
    return list((run / "stages/ask").glob("*/rows/[!.]*.parquet"))


def has_committed(run: Path, shards: int) -> bool:
    return len(committed(run)) >= shards


def content(run: Path) -> dict[str, tuple[bytes, int]]:
    """Committed files, with content and time of the last change."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in committed(run)}


def column(run: Path, folder: str, name: str) -> list[str]:
    """A column of all files in a folder of a run's stages."""
    files = (run / "stages").glob(f"{folder}/[!.]*.parquet")
    return [value for file in files for value in pq.read_table(file)[name].to_pylist()]


def asked(run: Path) -> int:
    """Questions that engines were asked, by their own logs, which no kill can take back."""
    logs = (run / "logs").glob("engine-*.log")
    return sum(log.read_text(errors="replace").count("Added request") for log in logs)


def answered(run: Path) -> int:
    """Questions that were answered, as far as the ledger knows."""
    return sum(json.loads(file.read_text())["requests"] for file in (run / "ledger").glob("ask.*"))


def schedule(kills: int, seed: int) -> list[tuple[int, str]]:
    """Numbers of committed shards at which to kill, one in each stretch, and what to kill then."""
    draw = random.Random(seed)
    stretch = SHARDS // (kills + 1)
    targets = [TARGETS[number % len(TARGETS)] for number in range(kills)]
    draw.shuffle(targets)
    return [
        (number * stretch + draw.randint(1, stretch), target)
        for number, target in enumerate(targets)
    ]


@pytest.fixture
def driver(nodes, recipe, tmp_path) -> Iterator[Driver]:
    driver = Driver(nodes, recipe, tmp_path / "run")
    yield driver
    driver.kill()


def kill(target: str, driver: Driver, nodes: Nodes) -> None:
    if target == "driver":
        driver.kill()
    elif target == "node":
        nodes.kill_one()
    else:
        title = ACTOR if target == "engine" else CORE
        driver.wait_until(lambda: bool(nodes.processes(title)))
        for process in nodes.processes(title):
            os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("kills", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_kills_of_driver_node_and_engine_cost_only_what_was_in_flight(
    nodes, driver, tmp_path, kills
):
    run = tmp_path / "run"
    before: dict[str, tuple[bytes, int]] = {}
    for shards, target in schedule(kills, seed=0):
        # At least one shard more, so that all has come back that the kill before this one took.
        driver.wait_until(partial(has_committed, run, max(shards, len(before) + 1)))
        kill(target, driver, nodes)
        now = content(run)
        assert {name: now[name] for name in before} == before, "touched again"
        before = now
        if target == "driver":
            driver.start()
    driver.end()

    now = content(run)
    assert {name: now[name] for name in before} == before, "touched again"
    ids = column(run, "ask/*/rows", "id") + column(run, "ask/*/rejected", "id")
    assert len(ids) == len(set(ids)) == ROWS
    rejected = [json.loads(row)["item"] for row in column(run, "ask/*/rejected", "original")]
    items = column(run, "ask/*/rows", "item") + rejected
    assert sorted(items) == sorted(column(run, "inputs/*/rows", "id"))
    assert ROWS <= asked(run) <= ROWS + kills * IN_FLIGHT * SHARD_ROWS
    assert answered(run) <= asked(run)
    # What a killed driver had started in the cluster went with it.
    deadline = time.monotonic() + 60
    while left := [title for title in leftovers(nodes.mark, 0).values() if OURS.match(title)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)

    driver.start()
    assert "Everything was done already" in driver.end()
    driver.start("--set", "ask.tiny.sampling.max_tokens=7")
    assert "ask.tiny.sampling.max_tokens: 6 -> 7" in driver.end(status=2)
    assert content(run) == now
