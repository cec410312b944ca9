"""A generation job on a cluster that Ray's own KubeRay autoscaler grows and shrinks.

The manifest is the one that `render` writes; the pods are real raylets. See tests/kubernetes_pods.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.workloads import workload
from tests.cluster_recipes import IMAGES, ray_cluster, teacher_data
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_pods import Operator, mount
from tests.leftovers import leftovers, marked

GROUP = "teacher-tiny"
SHARD_ROWS = 20


class Job:
    """A recipe's RayJob on the stand-in: its cluster, and its entrypoint."""

    def __init__(self, folder: Path, recipe, command: str) -> None:
        self.folder = folder
        self.work = workload(recipe, "job")
        mount(folder, self.work)
        self.mark, environment = marked()
        self.api = KubernetesApi(folder, token="secret")
        entrypoint = self.work.object.spec.entrypoint
        self.entrypoint = entrypoint.replace("stillhouse", command, 1)
        self.operator = Operator(self.api, ray_cluster(self.work), folder, environment=environment)
        self.run = folder / "stillhouse/runs" / recipe.recipe.name

    def __enter__(self) -> Job:
        self.api.__enter__()
        self.operator.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.operator.__exit__()
        self.api.__exit__()
        assert not leftovers(self.mark, seconds=30)

    def log(self, name: str) -> str:
        file = self.folder / "pods" / f"{name}.log"
        return file.read_text(errors="replace")[-3000:] if file.exists() else ""

    def committed(self) -> list[Path]:
        return list((self.run / "stages/ask").glob("*/rows/[!.]*.parquet"))

    def ids(self) -> list[str]:
        files = [*self.committed(), *(self.run / "stages/ask").glob("*/rejected/[!.]*.parquet")]
        return [value for file in files for value in pq.read_table(file)["id"].to_pylist()]

    def wait(
        self,
        ready: Callable[[], bool],
        what: str,
        seconds: float,
        submitter: subprocess.Popen | None = None,
    ) -> None:
        """Wait for something, while the submitter goes on."""
        deadline = time.monotonic() + seconds
        while not ready():
            story = f"{what}: {self.operator.history}\n{self.log('submitter-one')}"
            assert self.operator.error is None, self.operator.error
            assert submitter is None or submitter.poll() is None, story
            assert time.monotonic() < deadline, story
            time.sleep(0.1)


def rows(folder: Path, number: int) -> None:
    lines = (json.dumps({"question": f"Number {n} of the day"}) for n in range(number))
    (folder / "rows.jsonl").write_text("\n".join(lines))


@pytest.fixture
def folder(tmp_path_factory) -> Iterator[Path]:
    """A short path: Ray's sockets do not take a long one."""
    folder = Path(f"/tmp/shk{os.getpid()}")
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def recipe_of(folder: Path, teacher: dict, number: int):
    recipe = teacher_data(
        folder,
        {"tiny": teacher},
        shard_rows=SHARD_ROWS,
        ask={"tiny": {"prompt": "Headline: {{ question }}", "sampling": {"max_tokens": 6}}},
        cluster={
            "images": IMAGES,
            "idle_seconds": 5,
            "cpu_pods": {"cpus": 2, "memory_gib": 1.0, "max": 1},
        },
    )
    rows(folder, number)
    return recipe


def test_groups_grow_from_zero_and_back_around_an_instant_engine(folder, tiny_teacher):
    number = 2400
    teacher = {
        "model": str(tiny_teacher),
        "engine": {"max_num_seqs": 8, "seconds": 0.2},
        "device": {"cpus": 1.0},
        "replicas": 3,
    }
    recipe = recipe_of(folder, teacher, number)
    with Job(folder, recipe, "python -m tests.light_driver") as job:
        assert job.operator.counts() == {"cpu": 0, GROUP: 0}
        grow_and_shrink(job, number, 300)


def grow_and_shrink(job: Job, number: int, seconds: float) -> None:
    """Run a job to its end, kill a pod on the way, and watch its pods come and go."""
    operator = job.operator
    submitter = operator.submit(job.entrypoint, "one")
    job.wait(lambda: len(operator.of_group(GROUP)) == 3, "three pods", seconds, submitter)
    shards = number // SHARD_ROWS
    job.wait(
        lambda: len(job.committed()) > shards // 4, "a quarter of the rows", seconds, submitter
    )
    victim = operator.of_group(GROUP)[1]
    os.kill(victim.raylet(), signal.SIGKILL)
    job.wait(lambda: victim not in operator.of_group(GROUP), "the pod's end", 60, submitter)
    job.wait(
        lambda: len(operator.of_group(GROUP)) == 3 or submitter.poll() is not None,
        "another pod in its place",
        seconds,
    )
    assert submitter.wait(seconds) == 0, job.log("submitter-one")
    job.wait(lambda: not any(operator.counts().values()), "no pod", 120)

    assert len(job.ids()) == len(set(job.ids())) == number
    most = {group["groupName"]: group["maxReplicas"] for group in operator.spec["workerGroupSpecs"]}
    assert all(operator.most[group] <= most[group] for group in most)
    assert operator.most[GROUP] == 3
    assert all(group["replicas"] == 0 for group in operator.spec["workerGroupSpecs"])
