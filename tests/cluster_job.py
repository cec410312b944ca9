"""A recipe's job on the stand-in of a Kubernetes cluster, and the folder that it is in."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from cluster.workloads import Kind, workload
from tests.cluster_recipes import IMAGES, ray_cluster, teacher_data
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_pods import Operator, mount
from tests.leftovers import leftovers, marked

GROUP = "teacher-tiny"
SHARD_ROWS = 20


class Job:
    """A recipe's RayJob on the stand-in: its cluster, and its entrypoint."""

    def __init__(self, folder: Path, recipe, command: str, kind: Kind = "job") -> None:
        self.folder = folder
        self.work = workload(recipe, kind)
        mount(folder, self.work)
        self.mark, environment = marked()
        self.api = KubernetesApi(folder, token="secret")
        # The entrypoint of its job, whatever runs it.
        entrypoint = workload(recipe, "job").object.spec.entrypoint
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


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short path: Ray's sockets do not take a long one."""
    folder = Path(tempfile.mkdtemp(prefix="k"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def recipe_of(folder: Path, teacher: dict, number: int, budget: dict | None = None, **cluster):
    recipe = teacher_data(
        folder,
        {"tiny": teacher},
        shard_rows=SHARD_ROWS,
        budget=budget or {},
        ask={"tiny": {"prompt": "Headline: {{ question }}", "sampling": {"max_tokens": 6}}},
        cluster={
            "images": IMAGES,
            "idle_seconds": 5,
            "notice_seconds": 0,
            "cpu_pods": {"cpus": 2, "memory_gib": 1.0, "max": 1},
            **cluster,
        },
    )
    rows(folder, number)
    return recipe
