"""The backends of an encoder: all of them compute what torch computes."""

import numpy as np
import pytest

from core.recipe_section import Device
from serving.backends import load_backend
from serving.encoder_input import softmax
from tests.students import make_classifier
from tests.tiny_models import make_chooser

NAMES = ["input_ids", "token_type_ids", "attention_mask"]
SHAPES = ((1, 2), (1, 16), (5, 64), (33, 7))
"""Sequences and tokens; none is that of the export."""


def padded_batch(sequences, tokens):
    drawn = np.random.default_rng(sequences)
    mask = np.ones((sequences, tokens), np.int64)
    mask[0, tokens // 2 + 1 :] = 0
    return {
        "input_ids": drawn.integers(5, 50, (sequences, tokens)) * mask,
        "token_type_ids": np.zeros((sequences, tokens), np.int64),
        "attention_mask": mask,
    }


@pytest.fixture(params=[False, True], ids=["classes", "choices"])
def reads_choices(request):
    return request.param


@pytest.fixture
def student(reads_choices, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    make = make_chooser if reads_choices else make_classifier
    return make(tiny_encoder, tmp_path / "student")


def probabilities(backend, student, reads_choices):
    forward = load_backend(backend, student, Device(), NAMES, reads_choices=reads_choices)
    rows = [forward.logits(padded_batch(*shape)) for shape in SHAPES]
    assert all(len(found) == shape[0] for found, shape in zip(rows, SHAPES, strict=True))
    if reads_choices:  # of the first batch's choices there is one
        return np.concatenate([softmax(found.reshape(-1).tolist()) for found in rows])
    return np.concatenate(
        [np.array([softmax(one) for one in found.tolist()]).ravel() for found in rows]
    )


@pytest.mark.parametrize(
    ("backend", "within"), [("torch-bfloat16", 0.02), ("onnx", 1e-5), ("onnx-int8", 0.1)]
)
def test_a_backend_is_the_student(backend, within, student, reads_choices, tmp_path):
    if backend.startswith("onnx"):
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    exact = probabilities("torch", student, reads_choices)
    found = probabilities(backend, student, reads_choices)
    assert found == pytest.approx(exact, abs=within)
    exports = list((tmp_path / "cache" / "onnx").glob("*.onnx"))
    assert len(exports) == {"torch-bfloat16": 0, "onnx": 1, "onnx-int8": 2}[backend]
