"""What a Prometheus that scrapes Ray finds of a stage, on a real Ray."""

from __future__ import annotations

import re
import time
import urllib.request
from collections import defaultdict

import pytest
import ray

from core.identity import content_id
from core.ledger import Ledger
from core.recipe import LoadedRecipe
from core.recipe_teachers import Teacher
from core.run import Folder, Run
from core.stage import StageContext
from core.teacher import Sampling
from pipelines.asking import AskTeacher
from pipelines.engine_pool import start_engines
from pipelines.shards import Lane, run_shards
from stillhouse.methods.teacher_data import TeacherDataRecipe
from tests.light_engine import LightEngine

RECIPE = {
    "name": "the-run",
    "method": "teacher_data",
    "shard_rows": 20,
    "inputs": {"file": "rows.jsonl"},
    "teachers": {"light": {"model": "light"}},
    "ask": {"light": {"prompt": "{{ question }}"}},
}


@pytest.fixture(scope="module")
def cluster():
    often = {"metrics_report_interval_ms": 500}
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        _system_config=often,
    )
    yield
    ray.shutdown()


@pytest.fixture
def context(tmp_path):
    run = Run(Folder(str(tmp_path / "run")))
    return StageContext(
        stage=run.stage("ask", "w" * 12),
        recipe=LoadedRecipe(TeacherDataRecipe.model_validate(RECIPE), tmp_path),
        settings={},
        inputs={},
        engine=lambda _: None,
        model=lambda name: name,
        fingerprint="f",
        attempt="a",
        write_entry=Ledger(run.ledger).write,
        show=lambda _: None,
        over_budget=lambda _: None,
        logs=tmp_path,
    )


def scraped(port: int) -> dict[str, dict[str, float]]:
    """Our samples at a node's endpoint: by name, values by the last label's value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for name, labels, value in re.findall(r"^ray_(stillhouse_\w+)\{(.*)\} (\S+)$", text, re.M):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert (tags["run"], tags["stage"], tags["teacher"]) == ("the-run", "ask", "light")
        last = next((tags[k] for k in ("outcome", "direction", "use") if k in tags), "")
        found[name][last] = float(value)
    return found


def test_rows_and_tokens_come_out_of_rays_own_endpoint(cluster, context, tmp_path):
    pool = start_engines("light", Teacher(model="light"), tmp_path, 0, tmp_path, engine=LightEngine)
    plan = [
        {
            "id": content_id(n),
            "item": content_id("item", n),
            "sample": 0,
            "fields": "{}" if n % 10 == 0 else '{"question": "why"}',
        }
        for n in range(200)
    ]
    try:
        work = AskTeacher(pool, "{{ question }}", "", Sampling(max_tokens=4), seeded=False)
        result = run_shards(context, [Lane(pool, plan, work)])
    finally:
        pool.close()
    assert (result.rows, result.rejected) == (180, {"no-field": 20})
    wanted = {
        "stillhouse_rows_total": {"kept": 180, "rejected": 20},
        # Two tokens in and three out for each answer of a light engine.
        "stillhouse_tokens": {"in": 360, "cached": 0, "out": 540},
        "stillhouse_engines": {"": 1},
        "stillhouse_engine_restarts": {"": 0},
    }
    port = ray.nodes()[0]["MetricsExportPort"]
    deadline = time.monotonic() + 60
    while not (found := scraped(port)).items() >= wanted.items() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found == wanted | found
    # A core costs $0.048 an hour, and the light engine is never idle or starting.
    seconds = sum(found["stillhouse_device_seconds"].values())
    cost = found["stillhouse_cost"][""]
    assert cost == pytest.approx(seconds * 0.048 / 3600)
    assert found["stillhouse_cost_per_thousand_rows"][""] == pytest.approx(cost * 1000 / 180)
