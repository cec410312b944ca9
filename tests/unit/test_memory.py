"""What a training takes of memory: hand-worked numbers, and DeepSpeed's own where it has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs
from transformers import BertConfig, LlamaConfig, T5Config

from core.errors import UseError
from core.recipe_section import Device
from core.recipe_students import Offload, Student, Train
from training.activations import Shape, count_activations
from training.architecture import Size, build_empty, size_of
from training.memory import (
    GATHERED,
    PREFETCHED,
    REDUCE_BUCKET,
    SUB_GROUP,
    Memory,
    Setting,
    States,
    states,
)
from training.zero import zero_config

ALL = Offload(optimizer=True, parameters=True)
WHOLE = Size(parameters=1000, trained=1000, largest=400)
ADAPTERS = Size(parameters=1000, trained=100, largest=400)


def found(stage, offload=None, *, half=True, workers=4, size=WHOLE, gpu=False):
    return states(size, Setting(stage, offload, workers, None, False), half=half, gpu=gpu)


# A thousand weights, the largest tensor of 400, four workers: shares are of 250.
@pytest.mark.parametrize(
    ("got", "wanted"),  # weights, gradients, optimizer, backward, step, host
    [
        # Autocast or not, DDP's weights are float32; it sums gradients in a copy, but not alone.
        (found(None), (4000, 4000, 8000, 4000, 0, 0)),
        (found(None, workers=1), (4000, 4000, 8000, 0, 0, 0)),
        # 2 bytes of weight and gradient; 4 + 4 + 4 of weight and moments; gradients in float32.
        (found(0), (2000, 2000, 12000, 2000, 4000, 0)),
        (found(0, half=False), (4000, 4000, 8000, 4000, 0, 0)),
        # 12 * 250 of the optimizer; the bucket of all, and the largest tensor; (2 + 4) * 250.
        # Stage 1 divides gradients when the last pass of a batch is through.
        (found(1), (2000, 2000, 3000, 2000 + 800, 1500, 0)),
        (found(2), (2000, 500, 3000, 2800, 1500, 0)),
        (found(2, half=False), (4000, 1000, 3000, 4000 + 1600, 1000, 0)),
        (found(2, gpu=True), (2000, 500, 3000, 2 * 500_000_000 + 800, 1500, 0)),
        (found(2, Offload()), (2000, 0, 0, 2000 + 2 * 800, 0, 20 * 250)),
        # The bucket, all weights gathered, and the bucket again.
        (found(3), (500, 500, 3000, 2000 + 2000 + 2000, 1500, 0)),
        (found(3, half=False), (1000, 1000, 3000, 12000, 1000, 0)),
        (found(3, Offload()), (500, 0, 0, 6000, 0, 18 * 250)),
        (found(3, ALL), (0, 0, 0, 6000, 0, 18 * 250 + 500)),
        # Of 1000 weights 100 are trained: shares of 25. Frozen ones are divided by stage 3 alone.
        (found(None, size=ADAPTERS), (4000, 400, 800, 400, 0, 0)),
        (found(2, size=ADAPTERS), (2000, 50, 300, 200 + 200, 150, 0)),
        (found(3, size=ADAPTERS), (500, 50, 300, 200 + 2000 + 200, 150, 0)),
    ],
)
def test_states_worked_out_by_hand(got, wanted):
    assert got == States(*wanted)


def test_the_workers_shares_come_to_the_whole_states():
    size = Size(parameters=70_553_706_496, trained=70_553_706_496, largest=1_050_673_152)
    share = found(3, size=size, workers=16)
    # 2 of weight, 2 of gradient and 12 of the optimizer; 16 divides the number of weights.
    assert 16 * (share.weights + share.gradients + share.optimizer) == 16 * size.parameters


@pytest.mark.parametrize("workers", [1, 8, 16])
def test_deepspeeds_own_estimators_say_the_same_where_they_speak_of_the_same(workers):
    number, largest = 8_030_261_248, 525_336_576
    size = Size(number, number, largest)
    share = -(-number // workers)
    for offloads in (False, True):
        _, on_gpu = estimate_zero2_model_states_mem_needs(number, workers, 1, offloads)
        ours = found(2, Offload() if offloads else None, size=size, workers=workers)
        # Theirs has gradients in float32, too, which live in the optimizer's step.
        copy = 0 if offloads else 4 * share
        assert ours.weights + ours.gradients + ours.optimizer + copy == on_gpu
    for offload in (None, Offload(), ALL):
        _, on_gpu, layer = estimate_zero3_model_states_mem_needs(
            number,
            largest,
            workers,
            1,
            cpu_offload=offload is not None,
            cpu_offload_params=offload == ALL,
        )
        ours = found(3, offload, size=size, workers=workers, gpu=True)
        # Theirs has gradients in float32, but none in 16 bits.
        copy = 4 * share if offload is None else 0
        theirs = on_gpu - layer + ours.gradients
        assert ours.weights + ours.gradients + ours.optimizer + copy == theirs
        assert ours.backward >= layer  # the largest tensor and its gradient


def test_buffers_are_as_large_as_our_configuration_has_deepspeed_make_them():
    train = Train(zero_stage=3, device=Device(gpus=1))
    config = DeepSpeedZeroConfig(**zero_config(train)["zero_optimization"])
    assert config.reduce_bucket_size == REDUCE_BUCKET
    assert config.max_live_parameters == config.max_reuse_distance == GATHERED
    assert config.prefetch_bucket_size == PREFETCHED
    assert config.sub_group_size == SUB_GROUP


HEADS, HIDDEN, INNER = 4, 256, 512


def llama(layers: int = 2, **changes) -> LlamaConfig:
    sizes = {
        "vocab_size": 1000,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
    }
    return LlamaConfig(**sizes | changes, architectures=["LlamaForCausalLM"])


def bert(layers: int = 2) -> BertConfig:
    return BertConfig(
        vocab_size=1000,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
    )


def count(config, family, length, *, gpu=True, dtype=torch.bfloat16):
    student = Student(family=family, model="any")
    model = build_empty(config, student, 3, dtype)
    return count_activations(model, Shape(family, 1, length, 10), gpu=gpu, autocast=False)


@pytest.mark.parametrize("length", [64, 128])
def test_a_layer_of_llama_keeps_what_is_worked_out_by_hand(length):
    two, three = (count(llama(layers), "causal", length) for layers in (2, 3))
    # Bytes a token. Two norms: the input in float32, 1/rms, and normalised before and behind the
    # weight. Attention: query, key, value, output as it comes and as it is projected, the log of
    # the sum for each head. MLP: gate before and behind SiLU, up, their product. And the mask.
    norms = 2 * (4 * HIDDEN + 4 + 2 * HIDDEN + 2 * HIDDEN)
    attention = 5 * 2 * HIDDEN + 4 * HEADS
    mlp = 4 * 2 * INNER
    assert three.whole - two.whole == length * (norms + attention + mlp + 2 * length)
    # With checkpointing a further layer keeps its input.
    assert three.checkpointed - two.checkpointed == length * 2 * HIDDEN


@pytest.mark.parametrize("length", [64, 128])
def test_a_layer_of_bert_keeps_what_the_paper_says(length):
    two, three = (count(bert(layers), "encoder", length) for layers in (2, 3))
    # 34 h a token (2205.05198, equation 1) without the scores. Fused attention keeps instead its
    # output in its own order, the log of the sum for each head, and the mask; and each of two layer
    # norms a mean and a deviation in float32, which the paper leaves out.
    paper = 34 * HIDDEN
    assert three.whole - two.whole == length * (
        paper + 2 * HIDDEN + 4 * HEADS + 2 * length + 2 * 2 * 4
    )


def test_only_an_attention_that_is_not_fused_keeps_the_scores():
    # On a CPU, BERT's dropout among the scores has no fused kernel.
    squares = [
        count(bert(), "encoder", 256, gpu=gpu).whole
        - 2 * count(bert(), "encoder", 128, gpu=gpu).whole
        for gpu in (True, False)
    ]
    # 2 layers, and 256 * 256 - 2 * 128 * 128 more pairs; of each one at least 5 bytes a head.
    assert squares[1] - squares[0] > 2 * 5 * HEADS * (256 * 256 - 2 * 128 * 128)


def test_logits_count_only_where_an_answer_is():
    student = Student(family="causal", model="any")
    model = build_empty(llama(), student, 0, torch.bfloat16)
    ten, twenty = (
        count_activations(model, Shape("causal", 3, 64, answer), gpu=True, autocast=False).whole
        for answer in (10, 20)
    )
    # Log-probabilities that are kept, and two gradients, in float32, and places and labels.
    each = 12 * 1000
    assert 3 * 10 * each <= twenty - ten <= 3 * 10 * (each + 2 * HIDDEN + 16)


@pytest.fixture
def memory(tmp_path: Path):
    def made(config, train=None, choices=3, **student) -> Memory:
        config.save_pretrained(tmp_path)
        section = {"family": "causal", "model": "any", "train": train or {}, **student}
        return Memory(tmp_path, Student.model_validate(section), choices)

    return made


ON_GPU = {"device": {"kind": "h100", "gpus": 1}}


def test_adapters_are_counted_as_peft_makes_them(memory):
    own = memory(llama(), {**ON_GPU, "zero_stage": 3, "lora": {"rank": 8}})
    # Rank times inputs and outputs of q, k, v, o, gate, up and down, in two layers.
    shapes = [(256, 256), (256, 128), (256, 128), (256, 256), *[(256, 512)] * 3]
    adapters = 2 * 8 * sum(map(sum, shapes))
    assert own.size.trained == adapters
    assert (
        own.size.parameters
        == size_of(
            build_empty(llama(), Student(family="causal", model="x"), 0, torch.float32)
        ).parameters
        + adapters
    )


@pytest.mark.parametrize(
    ("section", "train", "choices", "sequences"),
    [
        ({"family": "encoder"}, {"batch_size": 16, "workers": 4}, 3, 4),
        ({"family": "encoder"}, {"batch_size": 16, "workers": 3}, 3, 6),
        ({"family": "encoder"}, {"batch_size": 16, "micro_batch_size": 2}, 3, 2),
        ({"family": "encoder"}, {"batch_size": 4, "workers": 4, "micro_batch_size": 8}, 3, 1),
        ({"family": "encoder", "head": "choices"}, {"micro_batch_size": 2}, 3, 6),
        ({"family": "encoder", "head": "choices"}, {"micro_batch_size": 2}, 0, 10),
        ({}, {"batch_size": 16, "workers": {"min": 2, "max": 8}}, 0, 8),
        (
            {},
            {
                "batch_size": 16,
                "workers": 2,
                "objective": {"kind": "sequence", "rationale_weights": {"a": 1.0, "b": 0.0}},
            },
            0,
            16,
        ),
    ],
)
def test_sequences_that_go_through_a_model_at_once(memory, section, train, choices, sequences):
    config = llama() if section.get("family") != "encoder" else bert()
    own = memory(config, train, choices, **section)
    assert own.sequences(own.own) == sequences


def test_activations_are_linear_in_the_sequences(memory):
    own = memory(
        llama(), {**ON_GPU, "micro_batch_size": 5, "max_length": 40, "max_answer_length": 8}
    )
    model = build_empty(llama(), own.student, 0, torch.float32)
    whole = count_activations(model, Shape("causal", 5, 48, 8), gpu=True, autocast=True)
    assert own.needs(own.own).activations == whole.whole


def test_the_fullest_moment_is_the_backward_pass_or_the_step(memory):
    own = memory(
        llama(),
        {
            "zero_stage": 0,
            "precision": "bfloat16",
            "max_length": 8,
            "max_answer_length": 1,
            "batch_size": 1,
        },
    )
    needs = own.needs(own.own)
    weights = own.size.parameters
    # The step's gradients in float32 are more than the activations of nine tokens.
    assert needs.activations + needs.buffers == 4 * weights
    assert needs.total == (2 + 2 + 12 + 4) * weights


def test_what_fits_is_within_nine_tenths_of_the_device(memory):
    own = memory(llama(), {})
    needs = own.needs(own.own)
    assert needs.fit(needs.total / 0.9 + 1)
    assert not needs.fit(needs.total / 0.9 - 1)


def test_the_nearest_that_fits_is_a_single_change_where_one_does(memory):
    own = memory(
        llama(8), {"batch_size": 64, "zero_stage": 2, "workers": 2, "precision": "bfloat16"}
    )
    needs = own.needs(own.own)
    ways = own.nearest(0.6 * needs.total / 0.9)
    assert {"activation_checkpointing": True} in ways
    assert {"micro_batch_size": 16} in ways or {"micro_batch_size": 8} in ways
    assert all(len(way) == 1 or set(way) == {"zero_stage", "offload"} for way in ways)
    for way in ways:
        changed = replace(own.own, **way)
        assert own.needs(changed).fit(0.6 * needs.total / 0.9)


def test_the_nearest_that_fits_is_several_changes_where_no_single_one_does(memory):
    own = memory(llama(8), {"batch_size": 64})
    least = replace(own.own, micro_batch_size=1, activation_checkpointing=True)
    room = 1.01 * own.needs(replace(least, zero_stage=2, offload=Offload())).total / 0.9
    (way,) = own.nearest(room)
    assert way == {
        "zero_stage": 2,
        "offload": Offload(),
        "micro_batch_size": 1,
        "activation_checkpointing": True,
    }
    assert own.needs(replace(own.own, **way)).fit(room)
    assert own.nearest(1000) == []


def test_the_nearest_number_of_workers_is_the_least_that_fits(memory):
    own = memory(
        llama(8), {"zero_stage": 3, "micro_batch_size": 1, "activation_checkpointing": True}
    )
    room = own.needs(replace(own.own, workers=7)).total / 0.9
    assert {"workers": 7} in own.nearest(room + 1)


@pytest.mark.parametrize(
    ("family", "config"),
    [("seq2seq", llama()), ("causal", T5Config(num_layers=1))],
)
def test_a_model_of_another_family_is_refused(memory, family, config):
    with pytest.raises(UseError, match=f"and no {family} model"):
        memory(config, family=family)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(UseError, match=r"config\.json cannot be used"):
        Memory(tmp_path, Student(model="any"), 2)


def test_the_memory_of_a_device_is_known_by_its_kind_or_said():
    assert Device(kind="a100-80gb", gpus=1).memory == 80 * 2**30
    assert Device(kind="a100-80gb", gpus=1, memory_gib=40).memory == 40 * 2**30
    assert Device(kind="mine", gpus=1).memory is None
    assert Device(kind="cpu-core").memory is None
    assert Device(kind="h100", cpus=2).memory is None
    assert Device(memory_gib=7.5).memory == 7.5 * 2**30
