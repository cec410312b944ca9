"""What a pool does when engines die, when they kill, and when the work grows and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
import ray

from core.errors import WorkError
from core.recipe_teachers import Replicas, Teacher
from core.teacher import EngineKilled, Sampling
from pipelines.engine_pool import start_engines
from tests.light_engine import LightEngine

SAMPLING = Sampling(max_tokens=4)


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def pool_of(cluster, tmp_path):
    pools = []

    def pool(replicas=1, **arguments):
        teacher = Teacher(model="light", engine=arguments, replicas=replicas)
        pools.append(start_engines("light", teacher, tmp_path, 0, tmp_path, engine=LightEngine))
        return pools[-1]

    yield pool
    for one in pools:
        one.close()


async def answers(pool, prompts):
    asked = (pool.complete(prompt, SAMPLING) for prompt in prompts)
    return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), timeout=300)


def test_questions_are_spread_over_the_engines(pool_of):
    pool = pool_of(replicas=2)
    assert pool.replicas == 2
    found = asyncio.run(answers(pool, [f"q{n}" for n in range(200)]))
    assert [one.text for one in found] == [f"Q{n}" for n in range(200)]
    places = ray.get(pool.roster.engines.remote())
    asked = [ray.get(actor.statistics.remote())["requests"] for actor in places.values()]
    assert sum(asked) == 200
    assert min(asked) >= 60  # as quick as the machine lets each of them be


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_questions_that_kill_are_found_and_all_others_answered(pool_of, replicas):
    pool = pool_of(replicas=replicas, seconds=0.05)
    prompts = [f"q{n}" for n in range(40)]
    prompts[7] = "POISON one"
    prompts[31] = "POISON two"
    found = asyncio.run(answers(pool, prompts))
    for prompt, answer in zip(prompts, found, strict=True):
        if "POISON" in prompt:
            assert isinstance(answer, EngineKilled), answer
        else:
            assert answer.text == prompt.upper()
    # All engines are there again, for everybody.
    deadline = time.monotonic() + 60
    while len(ray.get(pool.roster.engines.remote())) < replicas:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_kill_from_outside_blames_no_question(pool_of):
    pool = pool_of(seconds=0.3)

    async def ask():
        asked = asyncio.ensure_future(answers(pool, [f"q{n}" for n in range(40)]))
        await asyncio.sleep(0.5)
        process = (await pool.roster.processes.remote())[0]
        os.kill(process, signal.SIGKILL)
        return await asked

    assert all(answer.text for answer in asyncio.run(ask()))


@pytest.mark.slow
def test_an_engine_that_dies_of_everything_ends_the_teacher_and_not_the_questions(pool_of):
    found = asyncio.run(answers(pool_of(fragile=True), [f"q{n}" for n in range(8)]))
    told = [answer for answer in found if isinstance(answer, WorkError)]
    assert told, found
    assert "each asked alone" in told[0].cause


def test_engines_come_with_the_work_and_go_with_it(pool_of):
    pool = pool_of(replicas=Replicas(min=1, max=2), max_num_seqs=4, seconds=0.2)
    assert pool.replicas == 1

    async def work():
        asked = asyncio.ensure_future(answers(pool, [f"q{n}" for n in range(300)]))
        sizes = []
        while not asked.done():
            left = 300 - pool.statistics()["requests"]
            pool.demand(int(left), 1000.0)
            sizes.append(len(await pool.roster.engines.remote()))
            await asyncio.sleep(0.3)
        return sizes, await asked

    sizes, found = asyncio.run(work())
    assert all(answer.text for answer in found)
    assert max(sizes) == 2
    deadline = time.monotonic() + 60
    while pool.replicas > 1:  # nothing is left to do
        pool.demand(0, 0.0)
        assert time.monotonic() < deadline
        time.sleep(0.3)
    # The closed engine's work is not forgotten.
    assert pool.statistics()["requests"] == 300


def test_no_engine_is_started_for_work_that_ends_before_it_would_be_there(pool_of):
    pool = pool_of(replicas=Replicas(min=1, max=2), max_num_seqs=4)
    for _ in range(5):
        pool.demand(1000, 0.0)
    time.sleep(1)
    assert pool.replicas == 1
