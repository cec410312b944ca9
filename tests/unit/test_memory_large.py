"""Llama-3.1-70B and 8B, built without their weights: sizes, and which GPUs hold their trainings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from core.recipe_file import load_recipe
from core.recipe_students import Offload, Student
from stillhouse.methods import recipe_model
from training.architecture import build_empty, size_of
from training.memory import Memory

RECIPES = Path(__file__).parents[2] / "recipes"

# The published hyper-parameters.
SHARED = {
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}
SIZES = {
    "70b": {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
}
PARAMETERS = {"70b": 70_553_706_496, "8b": 8_030_261_248}


def config(size: str) -> LlamaConfig:
    return LlamaConfig(**SHARED, **SIZES[size], architectures=["LlamaForCausalLM"])


@pytest.fixture
def memory(tmp_path):
    def made(size: str, **train) -> Memory:
        (tmp_path / "config.json").write_text(config(size).to_json_string())
        loaded = load_recipe(RECIPES / f"llama_{size}.yaml", recipe_model)
        section = loaded.training_recipe.students[f"llama-{size}"].model_dump()
        section["train"] |= train
        return Memory(tmp_path, Student.model_validate(section), 0)

    return made


@pytest.mark.parametrize("size", ["8b", "70b"])
def test_parameters_of_the_architecture(size):
    model = build_empty(config(size), Student(family="causal", model="x"), 0, torch.bfloat16)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    found = size_of(model)
    assert found.parameters == found.trained == PARAMETERS[size]
    assert found.largest == 128256 * SIZES[size]["hidden_size"]


@pytest.mark.parametrize("size", ["8b", "70b"])
def test_the_recipes_states_come_to_those_of_the_model_over_all_workers(memory, size):
    own = memory(size)
    needs, workers = own.needs(own.own), own.own.workers
    assert own.own.zero_stage == 3
    assert own.precision == "bfloat16"
    assert workers * needs.weights == 2 * PARAMETERS[size]
    away = own.own.offload is not None
    in_machine = workers * needs.host
    # In the machine: 4 of weight, 8 of moments and 4 of gradient in float32, 2 of gradient.
    assert in_machine == (18 * PARAMETERS[size] if away else 0)
    assert workers * needs.gradients == (0 if away else 2 * PARAMETERS[size])
    assert workers * needs.optimizer == (0 if away else 12 * PARAMETERS[size])


DDP, ONE, TWO, THREE = ((None, None), (1, None), (2, None), (3, None))
TWO_OFF, THREE_OFF = (2, Offload()), (3, Offload())
ALL_OFF = (3, Offload(optimizer=True, parameters=True))


def holding(own: Memory) -> list[tuple[int | None, Offload | None]]:
    """Of which ZeRO stage and offload a training fits."""
    there = own.student.train.device.memory
    return [
        (setting.zero_stage, setting.offload)
        for setting, needs in own.variants()
        if needs.fit(there)
    ]


@pytest.mark.parametrize(
    ("workers", "fitting"),
    [
        (1, [TWO_OFF, THREE_OFF, ALL_OFF]),
        (2, [TWO_OFF, THREE, THREE_OFF, ALL_OFF]),
        (4, [ONE, TWO, TWO_OFF, THREE, THREE_OFF, ALL_OFF]),
        (8, [ONE, TWO, TWO_OFF, THREE, THREE_OFF, ALL_OFF]),
    ],
)
def test_what_holds_the_8b_on_gpus_of_80_gb(memory, workers, fitting):
    assert holding(memory("8b", workers=workers)) == fitting


def test_sixteen_gpus_of_80_gb_hold_the_70b_with_its_optimizer_in_the_machines(memory):
    assert holding(memory("70b", workers=8)) == [THREE_OFF, ALL_OFF]
    assert holding(memory("70b", workers=16)) == [THREE_OFF, ALL_OFF]
    assert holding(memory("70b", workers=17)) == [THREE, THREE_OFF, ALL_OFF]


def test_without_offload_sixteen_gpus_lack_room_for_the_headroom_alone(memory):
    own = memory("70b", offload=None)
    needs, there = own.needs(own.own), own.student.train.device.memory
    states = needs.weights + needs.gradients + needs.optimizer
    assert states == 16 * PARAMETERS["70b"] / 16
    # 65.7 GiB; the rest is one layer's activations and the inputs of 80, and the tensors of the
    # embedding's size that are gathered and reduced: 128256 * 8192 numbers of two bytes, 2 GiB.
    assert 0.9 * there < needs.total < there
    assert own.nearest(there) == [{"offload": Offload()}, {"workers": 17}]


def test_the_recipes_fit(memory):
    for size in ("8b", "70b"):
        own = memory(size)
        assert own.needs(own.own).fit(own.student.train.device.memory)


@pytest.fixture
def hub(tmp_path) -> dict[str, str]:
    """The environment of a laptop that has of each Llama the config.json alone."""
    for size in SIZES:
        model = tmp_path / f"models--meta-llama--Llama-3.1-{size.upper()}-Instruct"
        folder = model / "snapshots" / size
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config(size).to_json_string())
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(size)
    cache = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(RECIPES.parent), "LLAMA_KEY": "key", **cache}


def plan(size: str, hub: dict[str, str], *settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stillhouse.command_line", "plan", f"llama_{size}.yaml"]
    sets = [part for setting in settings for part in ("--set", setting)]
    return subprocess.run(
        [*command, *sets, "--run", f"{hub['HF_HUB_CACHE']}/run"],
        cwd=RECIPES,
        env=hub,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_laptop_without_the_weights_plans_the_8b(hub):
    done = plan("8b", hub)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "8,030,261,248 parameters; 8 workers, each 2 sequences of 1056 tokens" in text
    (own,) = [line for line in done.stdout.splitlines() if line.startswith("* ")]
    # In GiB: 2 of weight, 2 of gradient and 12 of the optimizer for each of 8,030,261,248 / 8.
    assert own.split()[1:6] == ["ZeRO", "3", "1.87", "1.87", "11.22"]
    assert "yes" in own


def test_a_laptop_is_told_at_once_that_one_gpu_is_too_few(hub):
    done = plan("8b", hub, "students.llama-8b.train.workers=1")
    assert done.returncode == 2
    place, cause, mend = done.stderr.splitlines()
    assert place == "students.llama-8b.train"
    assert "79.6 GiB are there" in cause
    assert "Set offload.optimizer: true, or workers: 2." in mend
