"""What all tests share. Ray and vLLM are started once a module, by the tests that use them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before anything imports Ray or transformers: a local cluster without tokens, and no network.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["HF_HUB_OFFLINE"] = "1"

from serving.proxy import proxy_environment

os.environ.update(proxy_environment())  # as `stillhouse.ray_session` does

from tests.tiny_models import make_encoder, make_seq2seq, make_teacher


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny causal model."""
    return make_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def tiny_seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny T5."""
    return make_seq2seq(tmp_path_factory.mktemp("seq2seq"))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny encoder."""
    return make_encoder(tmp_path_factory.mktemp("encoder"))
