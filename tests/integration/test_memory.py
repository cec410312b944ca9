"""The memory that a plan tells, beside that of real steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, LlamaConfig, T5Config

from core.recipe_students import Student
from tests.launcher import launch
from tests.memory_worker import ANSWER, LENGTH, LLAMA, SEQUENCES, highest
from training.architecture import MODEL_CLASSES
from training.memory import Memory
from training.objectives import sequence_losses
from training.strategy import optimizer_of

CONFIGS = {
    "causal": LlamaConfig(**LLAMA, use_cache=False),
    "encoder": BertConfig(
        vocab_size=4000,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_labels=3,
    ),
    "seq2seq": T5Config(
        vocab_size=4000, d_model=256, d_ff=1024, num_layers=3, num_heads=4, use_cache=False
    ),
}


def memory_of(folder: Path, family: str, train: dict) -> Memory:
    CONFIGS[family].save_pretrained(folder)
    lengths = {
        "max_length": LENGTH - ANSWER if family == "causal" else LENGTH,
        "max_answer_length": ANSWER,
    }
    section = {"family": family, "model": "x", "train": {**lengths, **train}}
    return Memory(folder, Student.model_validate(section), 3)


def loss_of(model: nn.Module, family: str) -> Tensor:
    tokens = torch.randint(LLAMA["vocab_size"], (SEQUENCES, LENGTH))
    mask = torch.ones_like(tokens)
    mask[0, 0] = 0  # padding, so that attention has a mask
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if family == "encoder":
        logits = model(**inputs).logits
        return functional.cross_entropy(logits.float(), torch.zeros(SEQUENCES, dtype=torch.long))
    labels = tokens[:, -ANSWER:]
    if family == "causal":
        inputs["logits_to_keep"] = torch.arange(LENGTH - ANSWER - 1, LENGTH - 1)
    else:
        inputs["decoder_input_ids"] = labels
    return sequence_losses(model(**inputs).logits, labels).sum()


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        value.nbytes
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    )


@pytest.mark.parametrize(
    ("family", "train"),
    [
        ("causal", {}),
        ("causal", {"activation_checkpointing": True}),
        ("causal", {"precision": "bfloat16"}),
        ("causal", {"lora": {"rank": 4}}),
        ("encoder", {}),
        ("encoder", {"activation_checkpointing": True}),
        ("encoder", {"precision": "bfloat16"}),
        ("seq2seq", {}),
        ("seq2seq", {"activation_checkpointing": True}),
    ],
)
def test_a_step_without_deepspeed_takes_what_the_plan_tells(tmp_path, family, train):
    memory = memory_of(tmp_path, family, {**train, "batch_size": SEQUENCES})
    needs = memory.needs(memory.own)
    section = memory.student.train
    torch.manual_seed(0)
    model = MODEL_CLASSES[family].from_config(CONFIGS[family], dtype=torch.float32)
    if section.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if section.lora:
        settings = LoraConfig(r=section.lora.rank, target_modules="all-linear")
        model = get_peft_model(model, settings)
    optimizer = optimizer_of(model.train(), section)
    half = section.precision == "bfloat16"

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = loss_of(model, family)
        loss.backward()

    step()
    assert sum(p.nbytes for p in model.parameters()) == needs.weights
    learnt = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.grad.nbytes for p in learnt) == needs.gradients
    optimizer.step()
    assert state_bytes(optimizer) == needs.optimizer
    # The gradients stay, as where several passes add them up: all that is new is activations.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    # With checkpointing a layer's gradients, too, are there beside what it computes again.
    within = 0.25 if section.activation_checkpointing else 0.1
    assert highest(profiler) == pytest.approx(needs.activations, rel=within)


HALF = {"precision": "bfloat16"}
SETTINGS = [
    {"zero_stage": 0},
    {"zero_stage": 1},
    {"zero_stage": 2},
    {"zero_stage": 3},
    {"zero_stage": 0, **HALF},
    {"zero_stage": 1, **HALF},
    {"zero_stage": 2, **HALF},
    {"zero_stage": 2, **HALF, "offload": {}},
    {"zero_stage": 3, **HALF},
    {"zero_stage": 3, **HALF, "activation_checkpointing": True},
    {"zero_stage": 3, **HALF, "offload": {}},
    {"zero_stage": 3, **HALF, "offload": {"parameters": True}},
]


@pytest.mark.slow
def test_steps_of_two_workers_under_deepspeed_take_what_the_plan_tells(tmp_path):
    measured = launch("tests.memory_worker", json.dumps(SETTINGS), tmp_path)
    for number, setting in enumerate(SETTINGS):
        train = {**setting, "workers": 2, "batch_size": 2 * SEQUENCES}
        memory = memory_of(tmp_path, "causal", train)
        needs = memory.needs(memory.own)
        # Without GPUs, the machine's memory is that of the device.
        states = needs.weights + needs.gradients + needs.optimizer + needs.host
        # A tensor that is on both sides of the division is there whole, and what is offloaded has
        # buffers of the largest tensor's size.
        number_size = 2 if "precision" in setting else 4
        largest = number_size * memory.size.largest
        # The bucket is not among what was measured: it is larger than the whole model.
        bucket = number_size * memory.size.trained if setting["zero_stage"] else 0
        for worker in measured:
            found = worker[number]
            assert states <= found["live"] <= states + 2.3 * largest, setting
            told = needs.total + needs.host - bucket
            assert 0.85 <= told / found["highest"] <= 1.25, setting


@pytest.mark.slow
def test_no_worker_ever_has_all_weights_at_stage_3(tiny_teacher, tmp_path):
    config = LlamaConfig(
        **{**LLAMA, "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 6}
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "model", max_shard_size="100MB")
    AutoTokenizer.from_pretrained(tiny_teacher).save_pretrained(tmp_path / "model")
    del model
    for found in launch("tests.division_worker", str(tmp_path / "model"), tmp_path):
        # Half of them for good, one tensor or two whole at a time, and what libraries take.
        assert 0.4 * found["weights"] < found["kept"] < 0.7 * found["weights"]
        assert found["loading"] < 0.75 * found["weights"]
        assert 0 < found["whole"] < 0.4 * found["numbers"]
