"""A generation job on a cluster that Ray's own KubeRay autoscaler grows and shrinks.

The manifest is the one that `render` writes, and the pods are real raylets: see
`tests/kubernetes_pods.py`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.workloads import workload
from tests.cluster_job import GROUP, SHARD_ROWS, Job, recipe_of, short_folder
from tests.cluster_recipes import IMAGES, students
from tests.kubernetes_pods import mount


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


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


@pytest.mark.slow
def test_groups_grow_from_zero_and_back_around_vllm(folder, tiny_teacher):
    number = 1800
    teacher = {
        "model": str(tiny_teacher),
        "engine": {
            "dtype": "float32",
            "max_model_len": 128,
            "max_num_seqs": 8,
            "block_size": 32,
            "enforce_eager": True,
        },
        "device": {"cpus": 1.0},
        "replicas": 3,
    }
    with Job(folder, recipe_of(folder, teacher, number), "stillhouse") as job:
        grow_and_shrink(job, number, 480)


def grow_and_shrink(job: Job, number: int, seconds: float) -> None:
    """Run a job to its end, kill a pod and take another away, and watch pods come and go."""
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
    assert "was drained" in operator.preempt(operator.of_group(GROUP)[0])
    assert submitter.wait(seconds) == 0, job.log("submitter-one")
    job.wait(lambda: not any(operator.counts().values()), "no pod", 120)

    assert len(job.ids()) == len(set(job.ids())) == number
    most = {group["groupName"]: group["maxReplicas"] for group in operator.spec["workerGroupSpecs"]}
    assert all(operator.most[group] <= most[group] for group in most)
    assert operator.most[GROUP] == 3
    assert all(group["replicas"] == 0 for group in operator.spec["workerGroupSpecs"])


@pytest.mark.slow
def test_a_budget_that_is_used_up_leaves_no_pod_and_goes_on_when_it_is_raised(folder, tiny_teacher):
    number = 800
    teacher = {
        "model": str(tiny_teacher),
        "engine": {"max_num_seqs": 8, "seconds": 0.2},
        "device": {"cpus": 1.0},
        "replicas": 2,
    }
    recipe = recipe_of(folder, teacher, number, budget={"tokens": 2000})
    with Job(folder, recipe, "python -m tests.light_driver") as job:
        submitter = job.operator.submit(job.entrypoint, "one")
        assert submitter.wait(300) == 1
        assert "budget.tokens" in job.log("submitter-one")
        job.wait(lambda: not any(job.operator.counts().values()), "no pod", 120)
        # As KubeRay's retries would: nothing is started for it.
        before = len(job.operator.history)
        assert job.operator.submit(job.entrypoint, "two").wait(120) == 1
        assert len(job.operator.history) == before
        mount(folder, workload(recipe_of(folder, teacher, number), "job"))
        third = job.operator.submit(job.entrypoint, "three")
        assert third.wait(300) == 0, job.log("submitter-three")
        assert len(job.ids()) == len(set(job.ids())) == number


ROWS = 12_000


@pytest.mark.slow
def test_a_training_goes_on_when_a_machine_is_taken_from_it(folder, tiny_encoder):
    lines = (
        json.dumps({"question": f"Number {n}", "answer": "odd" if n % 2 else "even"})
        for n in range(ROWS)
    )
    train = {
        "epochs": 1,
        "batch_size": 8,
        "workers": 2,
        # None by itself before the end: what there is was made when word came.
        "checkpoint_every": 100_000,
        "max_length": 16,
    }
    recipe = students(
        folder,
        {"s": {"model": str(tiny_encoder), "train": train}},
        task={
            "kind": "choices",
            "choices": ["odd", "even"],
            "prompt": "{{ question }}",
            "gold": "answer",
            "labels": "gold",
        },
        cluster={
            "images": IMAGES,
            "idle_seconds": 10,
            "notice_seconds": 15,
            "spot": {"roles": ["trainer"]},
        },
    )
    (folder / "rows.jsonl").write_text("\n".join(lines))
    with Job(folder, recipe, "stillhouse") as job:
        submitter = job.operator.submit(job.entrypoint, "one")

        def step() -> int:
            notes = list(job.run.glob("stages/train-s/*/**/note.*.json"))
            return max((json.loads(note.read_text())["step"] for note in notes), default=0)

        job.wait(lambda: step() > 50, "the training's first steps", 300, submitter)
        pods = job.operator.of_group("train-s-spot")
        assert len(pods) == 2
        assert "was drained" in job.operator.preempt(pods[1])
        assert submitter.wait(400) == 0, job.log("submitter-one")
        (manifest,) = job.run.glob("stages/train-s/*/manifest.json")
        facts = json.loads(manifest.read_text())["facts"]
        assert facts["steps"] > facts["resumed"][0] > 50
        job.wait(lambda: not any(job.operator.counts().values()), "no pod", 120)
