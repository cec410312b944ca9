"""Ten times the load that one replica can hold, for a minute."""

import asyncio
import time
from collections import Counter

import aiohttp
import numpy as np
import psutil
import pytest

from core.models import model_folder
from core.recipe_serving import Serve
from serving.application import deploy
from serving.encoder import encoder_student
from tests.students import make_classifier

pytestmark = pytest.mark.slow

SECONDS = 60
OBJECTIVE_SECONDS = 2.0
"""Latency that accepted requests are to stay under; twice as much for the slowest of a hundred."""
MOST_PER_SECOND = 30


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    base = model_folder("embedded://all-minilm-l6-v2")
    settings = Serve(port=0, max_ongoing=2, max_queued=2, retry_after_seconds=1)
    student = encoder_student(str(make_classifier(base, folder / "minilm")))
    running = deploy({"minilm": student}, settings, name="busy")
    yield running
    running.close()


def body(texts):
    return {"model": "minilm", "input": ["the committee met again and then " * 10] * texts}


async def ask(session, endpoint, texts):
    """Status and seconds of one request, and whether a refusal says when to come again."""
    began = time.monotonic()
    async with session.post(f"{endpoint.url}/v1/classify", json=body(texts)) as answer:
        await answer.read()
        told = answer.status != 429 or answer.headers.get("Retry-After") == "1"
        return answer.status, time.monotonic() - began, told


async def capacity(session, endpoint, texts):
    """Requests a second, one after the other."""
    began, number = time.monotonic(), 0
    while time.monotonic() - began < 6:
        status, _, _ = await ask(session, endpoint, texts)
        assert status == 200
        number += 1
    return number / (time.monotonic() - began)


def memory(endpoint):
    return sum(psutil.Process(pid).memory_info().rss for pid in endpoint.processes())


async def overload(endpoint):
    async with aiohttp.ClientSession() as session:
        texts = 16
        held = await capacity(session, endpoint, texts)
        texts = max(1, round(texts * held / (MOST_PER_SECOND / 10) * 1.1))
        held = await capacity(session, endpoint, texts)
        rate = min(10 * held, MOST_PER_SECOND)
        drawn = np.random.default_rng(0)
        tasks, sizes = [], []
        arrival = began = time.monotonic()
        while arrival < began + SECONDS:
            await asyncio.sleep(max(0, arrival - time.monotonic()))
            tasks.append(asyncio.create_task(ask(session, endpoint, texts)))
            if len(tasks) % 30 == 0:
                sizes.append(memory(endpoint))
            arrival += drawn.exponential(1 / rate)
        answers = await asyncio.gather(*tasks)
        recovered = time.monotonic()
        while True:
            status, seconds, _ = await ask(session, endpoint, texts)
            if status == 200 and seconds < OBJECTIVE_SECONDS:
                break
        return held, rate, answers, sizes, time.monotonic() - recovered


def test_ten_times_the_load_is_refused_and_not_suffered(endpoint):
    held, rate, answers, sizes, recovery = asyncio.run(overload(endpoint))
    statuses = Counter(status for status, _, _ in answers)
    accepted = [seconds for status, seconds, _ in answers if status == 200]
    slowest = float(np.percentile(accepted, 99))
    print(  # noqa: T201, the figures of the bar
        f"held {held:.1f}/s, sent {rate:.1f}/s: {dict(statuses)}; p99 of accepted {slowest:.2f} s; "
        f"memory {sizes[0] / 2**20:.0f} to {sizes[-1] / 2**20:.0f} MiB; recovered in "
        f"{recovery:.2f} s"
    )
    assert set(statuses) == {200, 429}
    assert all(told for *_, told in answers), "a refusal does not say when to come again"
    assert statuses[200] > 0.5 * held * SECONDS, "it works less than it can"
    assert slowest <= 2 * OBJECTIVE_SECONDS
    quarter = len(sizes) // 4
    assert max(sizes[quarter:]) - max(sizes[:quarter]) < 32 * 2**20, sizes
    assert recovery <= 10
