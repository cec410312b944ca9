"""Engines with an adapter, of several workers, and over several machines."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import psutil
import pytest
import ray
from pydantic import ValidationError

from core.errors import UseError
from core.models import adapter_folder, teacher_revision
from core.recipe import LoadedRecipe, Recipe
from core.recipe_section import Device
from core.recipe_teachers import Teacher
from core.teacher import Sampling
from pipelines.engine_pool import start_engines
from tests.light_engine import LightEngine

ENGINE = {
    "dtype": "float32",
    "max_model_len": 256,
    "max_num_seqs": 4,
    "block_size": 32,
    "enforce_eager": True,
}
RANK, ALPHA = 4, 16
PROMPT, TEXT = "Headline: Late goal sends", " underdogs into the cup final\nNews desk: sports"


@pytest.fixture(scope="module")
def cluster():
    # The GPUs are only numbers to Ray; no engine of these tests computes on one.
    ray.init(address="local", num_cpus=8, num_gpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def engine_of(cluster, tmp_path):
    pools = []

    def engine(folder, **settings):
        adapter, body = settings.pop("adapter", None), settings.pop("body", None)
        teacher = Teacher(model=str(folder), **{"engine": ENGINE, **settings})
        more = {"adapter": adapter, **({"engine": body} if body else {})}
        pools.append(start_engines("one", teacher, folder, 0, tmp_path, **more))
        return pools[-1]

    yield engine
    for pool in pools:
        pool.close()


@pytest.fixture(scope="module")
def merged(tiny_teacher, tmp_path_factory):
    """A LoRA adapter as PEFT saves it, and the tiny teacher with its weights merged in."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_teacher, dtype=torch.float32)
    torch.manual_seed(7)
    weights = {}
    for number, layer in enumerate(model.model.layers):
        for name in ("q_proj", "v_proj"):
            module = getattr(layer.self_attn, name)
            a = torch.randn(RANK, module.in_features) * 0.2
            b = torch.randn(module.out_features, RANK) * 0.2
            place = f"base_model.model.model.layers.{number}.self_attn.{name}"
            weights |= {f"{place}.lora_A.weight": a, f"{place}.lora_B.weight": b}
            module.weight.data += ALPHA / RANK * (b @ a)
    folder = tmp_path_factory.mktemp("adapter")
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": str(tiny_teacher),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder, model


def logprobs_of(model, folder):
    """Log-probabilities of the tokens of `TEXT` after `PROMPT`, by transformers."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    before, tokens = tokenizer.encode(PROMPT), tokenizer.encode(PROMPT + TEXT)
    with torch.no_grad():
        scores = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    places = range(len(before), len(tokens))
    return [scores[place - 1, tokens[place]].item() for place in places]


def test_an_adapter_answers_as_the_model_with_its_weights_merged(merged, tiny_teacher, engine_of):
    folder, model = merged
    pool = engine_of(tiny_teacher, adapter=adapter_folder(str(folder)))
    found = asyncio.run(pool.score_text(PROMPT, TEXT))
    assert found.logprobs == pytest.approx(logprobs_of(model, tiny_teacher), abs=1e-3)


def test_a_secret_reaches_the_engine_and_no_log(tiny_teacher, engine_of, tmp_path, monkeypatch):
    secret = "s3cret-0f-th1s-test"
    monkeypatch.setenv("MY_TOKEN", secret)
    pool = engine_of(tiny_teacher, environment={"HF_TOKEN": "${MY_TOKEN}", "PLAIN": "told"})
    (process,) = pool.processes()
    children = psutil.Process(process).children(recursive=True)
    assert {child.environ().get("HF_TOKEN") for child in children} == {secret}
    assert {child.environ().get("PLAIN") for child in children} == {"told"}
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    logs = [*(session / "logs").rglob("*.*"), *tmp_path.rglob("*.log")]
    assert [
        log for log in logs if log.is_file() and secret in log.read_text(errors="replace")
    ] == []
    assert any("told" in log.read_text(errors="replace") for log in logs if log.is_file())


def test_an_adapter_is_part_of_what_answered(merged, tiny_teacher, tmp_path):
    folder, _ = merged
    plain = Teacher(model=str(tiny_teacher))
    teachers = {"plain": plain, "adapted": plain.model_copy(update={"adapter": str(folder)})}
    loaded = LoadedRecipe(Recipe(name="two", method="none", teachers=teachers), tmp_path)
    assert teacher_revision("plain", loaded) != teacher_revision("adapted", loaded)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UseError, match=r"adapter_model\.safetensors is not in it"):
        adapter_folder(str(tmp_path))


@pytest.mark.slow
def test_a_model_divided_between_workers_writes_the_same(tiny_teacher, engine_of):
    sampling = Sampling(max_tokens=24, temperature=0.0)
    texts = []
    # Pipelines of workers want a GPU: vLLM's CPU runner fails an assertion in the second one.
    for parallel in ({}, {"tensor_parallel_size": 2}):
        pool = engine_of(tiny_teacher, engine={**ENGINE, **parallel}, device=Device(cpus=2))
        texts.append(asyncio.run(pool.complete(PROMPT, sampling)).text)
    assert texts[0]
    assert texts[1] == texts[0]


def test_an_engine_over_machines_holds_a_bundle_for_each_gpu_and_gives_them_back(
    engine_of, tmp_path
):
    pool = engine_of(
        tmp_path,
        body=LightEngine,
        nodes=2,
        device=Device(kind="h100", cpus=4, gpus=4),
        engine={"tensor_parallel_size": 2, "pipeline_parallel_size": 2},
    )
    (group,) = ray.util.placement_group_table().values()
    assert group["state"] == "CREATED"
    assert list(group["bundles"].values()) == [{"GPU": 1.0, "CPU": 1.0}] * 4
    assert ray.available_resources().get("GPU", 0) == 0
    answer = asyncio.run(pool.complete("hello", Sampling(max_tokens=4)))
    assert answer.text == "HELLO"
    ray.get(pool.roster.close.remote())
    deadline = time.monotonic() + 30
    while ray.available_resources().get("GPU", 0) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"device": {"gpus": 8}}, "8 GPUs and engine makes 1 workers"),
        ({"device": {"gpus": 4}, "engine": {"tensor_parallel_size": 4}, "nodes": 3}, "3 nodes"),
        ({"nodes": 2}, "0 GPUs cannot be divided equally among 2 nodes"),
    ],
)
def test_gpus_that_nobody_would_use_are_refused(settings, cause):
    with pytest.raises(ValidationError, match=cause):
        Teacher.model_validate({"model": "m", **settings})
