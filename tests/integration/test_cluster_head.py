"""A head that is lost: the cluster goes on without it, and the job, submitted again, where it was.

Ray's control plane keeps its state in a real Redis, as the manifest says.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.cluster_job import GROUP, Job, recipe_of, short_folder
from tests.kubernetes_pods import free_ports
from tests.redis_server import needs_redis, redis_server

ROWS = 1200
PASSWORD = "of-redis"


def recipe(folder: Path, model: Path, address: str):
    teacher = {
        "model": str(model),
        "engine": {"max_num_seqs": 8, "seconds": 0.2},
        "device": {"cpus": 1.0},
        "replicas": 2,
    }
    # Longer than a head takes to come back: workers that have nothing to do then are to stay.
    return recipe_of(folder, teacher, ROWS, redis={"address": address}, idle_seconds=120)


@pytest.mark.slow
@needs_redis
def test_a_cluster_outlives_its_head_and_the_job_goes_on(tiny_teacher):
    (port,) = free_ports(1)
    with short_folder() as folder, redis_server(folder, port, PASSWORD) as address:
        job = Job(
            folder,
            recipe(folder, tiny_teacher, address),
            "python -m tests.light_driver",
            "cluster",
        )
        metadata = {"name": "stillhouse-redis", "namespace": "stillhouse"}
        data = {"password": base64.b64encode(PASSWORD.encode()).decode()}
        job.api.store.put("v1", "secrets", {"metadata": metadata, "data": data})
        with job:
            lose_the_head(job)


def lose_the_head(job: Job) -> None:
    operator = job.operator
    first = operator.submit(job.entrypoint, "one")
    job.wait(lambda: len(job.committed()) > 10, "the first rows", 240, first)
    workers = operator.of_group(GROUP)
    before = {worker.name: worker.raylet() for worker in workers}
    assert len(before) == 2
    (head,) = operator.of_group("headgroup")
    head.kill()
    first.wait(60)
    job.wait(lambda: head not in operator.of_group("headgroup"), "another head", 60)
    done = len(job.committed())
    assert done < ROWS // 20

    second = operator.submit(job.entrypoint, "two")
    assert {worker.name: worker.raylet() for worker in operator.of_group(GROUP)} == before
    assert second.wait(300) == 0, job.log("submitter-two")
    assert len(job.ids()) == len(set(job.ids())) == ROWS
    assert operator.most[GROUP] == 2
    assert len(job.committed()) > done
