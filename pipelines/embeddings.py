"""Embeddings of texts by a small encoder, by Ray Data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data

from core.placement import placed

BATCH_ROWS = 64
"""Texts of one forward pass."""

LONGEST = 256
"""Tokens of a text that are read: as many as all-MiniLM-L6-v2 was made for."""


def embed(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The mean of an encoder's last hidden states over each text's tokens, as unit vectors.

    Args:
        folder: The encoder's, a Hugging Face folder.
        texts: At least one.

    Returns:
        [texts, hidden] float32, each of length 1.
    """
    # Long ones beside long ones: what is padded takes time.
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    rows = [{"number": number, "text": texts[number]} for number in order]
    dataset = ray.data.from_items(rows, override_num_blocks=1).map_batches(
        TextEmbedder,
        fn_constructor_args=(folder,),
        batch_size=BATCH_ROWS,
        batch_format="pyarrow",
        concurrency=1,
        num_cpus=1,
        **placed("cpu"),
    )
    found = {row["number"]: row["embedding"] for row in dataset.iter_rows()}
    return np.array([found[number] for number in range(len(texts))], dtype=np.float32)


class TextEmbedder:
    """A Ray Data actor that runs an encoder over texts."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Put `embedding` in the place of `text`."""
        import torch

        read = self._tokenizer(
            batch["text"].to_pylist(),
            padding=True,
            truncation=True,
            max_length=LONGEST,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden = self._model(**read).last_hidden_state
        mask = read["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        unit = torch.nn.functional.normalize(mean, dim=-1)
        column = pa.array(unit.tolist(), pa.list_(pa.float32()))
        return batch.select(["number"]).append_column("embedding", column)
