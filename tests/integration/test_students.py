"""Students of the families that the other tests do not train, by the real stage, and in vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.recipe_students import Train
from tests.training_case import TRAIN, Case, make_choice_rows, make_texts, start_ray
from tests.vllm_logprobs import MOST

ROOT = Path(__file__).parents[2]
REASONS = {"kind": "sequence", "rationale_weights": {"palm": 0.5}}
WRITES = Train.model_validate(
    {**TRAIN.model_dump(), "max_length": 40, "max_answer_length": 8, "objective": REASONS}
)


@pytest.fixture(scope="module")
def cluster():
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(None, id="full", marks=pytest.mark.slow),
        pytest.param({"rank": 8, "alpha": 16}, id="LoRA"),
    ],
)
def writer(request, cluster, tiny_teacher, tmp_path_factory) -> Case:
    """A causal student, trained whole or by adapters that are merged."""
    train = Train.model_validate({**WRITES.model_dump(), "lora": request.param})
    case = Case(tmp_path_factory.mktemp("writer"), tiny_teacher, make_texts(91), train, "causal")
    history = case.run()["history"]
    # Adapters leave the tiny model's few embeddings as they are, and can do little.
    assert history[-1]["train_loss"] < (0.95 if request.param else 0.8) * history[0]["train_loss"]
    return case


def test_a_seq2seq_student_learns(cluster, tiny_seq2seq, tmp_path):
    facts = Case(tmp_path, tiny_seq2seq, make_texts(91), WRITES, "seq2seq").run()
    losses = [entry["train_loss"] for entry in facts["history"]]
    assert losses[-1] < 0.8 * losses[0]
    # An answer beside a rationale, each with a prompt of its own length.
    assert facts["padding_share"] < 0.05


def test_an_encoder_learns_rows_with_choices_of_their_own(cluster, tiny_encoder, tmp_path):
    train = TRAIN.model_copy(update={"max_length": 24})
    case = Case(tmp_path, tiny_encoder, make_choice_rows(91), train, head="choices")
    losses = [entry["train_loss"] for entry in case.run()["history"]]
    assert losses[-1] < 0.4 * losses[0]


def test_vllm_thinks_of_a_student_what_transformers_does(writer, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(writer.student)
    texts = [row["messages"][0]["content"] for row in writer.rows[:8]]
    prompts = [tokenizer.encode(text) for text in texts]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    files = [writer.student, tmp_path / "prompts.json", tmp_path / "found.json"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.vllm_logprobs", *map(str, files)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    model = AutoModelForCausalLM.from_pretrained(writer.student).eval()
    for tokens, places in zip(prompts, json.loads(files[-1].read_text()), strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        assert len(places) == len(tokens)
        for wanted, place in zip(logprobs, places, strict=True):
            assert len(place) == MOST
            ids, found = zip(*place, strict=True)
            torch.testing.assert_close(torch.tensor(found), wanted[list(ids)], rtol=0, atol=1e-3)
            # None that transformers finds likelier is missing.
            torch.testing.assert_close(
                torch.tensor(found), wanted.topk(MOST).values, rtol=0, atol=1e-3
            )
