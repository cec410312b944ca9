"""Answers of students that write: batched greedy generation in transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from core.placement import placed
from core.recipe_section import Device
from core.student_reading import StudentReading

BATCH_ROWS = 16
"""Rows that are written at once."""

Message = dict[str, str]


def write(
    folder: Path, questions: Sequence[tuple[str, list[Message]]], device: Device
) -> dict[str, str]:
    """What a student writes, by Ray Data.

    Args:
        folder: The student's, a Hugging Face folder with `stillhouse.json`.
        questions: Id and conversation; no two ids are the same.
        device: What it was trained on; where that has GPUs, it runs on one.

    Returns:
        By id.
    """
    gpu = device.gpus > 0
    # Long ones beside long ones: what is padded takes time.
    ordered = sorted(questions, key=lambda question: len(question[1][-1]["content"]))
    rows = [{"id": row_id, "messages": messages} for row_id, messages in ordered]
    dataset = ray.data.from_items(rows, override_num_blocks=1).map_batches(
        WritingPredictor,
        fn_constructor_args=(folder,),
        fn_constructor_kwargs={"gpu": gpu},
        batch_size=BATCH_ROWS,
        batch_format="pyarrow",
        concurrency=1,
        num_cpus=1,
        num_gpus=1 if gpu else 0,
        **(placed("trainer", device.kind) if gpu else placed("cpu")),
    )
    return {row["id"]: row["text"] for row in dataset.iter_rows()}


class WritingPredictor:
    """A Ray Data actor that has a causal or a seq2seq student answer conversations."""

    def __init__(self, folder: Path, *, gpu: bool = False) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        self._reading = StudentReading.of(folder)
        self._causal = self._reading.family == "causal"
        model = AutoModelForCausalLM if self._causal else AutoModelForSeq2SeqLM
        self._device = torch.device("cuda" if gpu else "cpu")
        # A CPU computes in bfloat16 many times slower.
        dtype = "auto" if gpu else torch.float32
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = model.from_pretrained(folder, dtype=dtype).to(self._device).eval()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Put `text` in the place of `messages`."""
        import torch

        prompts = [
            self._reading.prompt_ids(messages, self._tokenizer)
            for messages in batch["messages"].to_pylist()
        ]
        tokens, mask = self._padded(prompts)
        with torch.inference_mode():
            written = self._model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=self._reading.max_answer_length,
                do_sample=False,
                num_beams=1,
                # Of the base these may say how to draw.
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=self._ends(),
                pad_token_id=self._pad,
            )
        begin = tokens.shape[1] if self._causal else 0
        texts = self._tokenizer.batch_decode(written[:, begin:], skip_special_tokens=True)
        return pa.table({"id": batch["id"], "text": pa.array(texts, pa.string())})

    def _padded(self, prompts: list[list[int]]) -> tuple[Any, Any]:
        """Tokens and mask, [B, L]; a causal student's prompts all end where it begins to write."""
        import torch

        tokens = torch.full((len(prompts), max(map(len, prompts))), self._pad)
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(prompts):
            place = slice(-len(ids), None) if self._causal else slice(len(ids))
            tokens[row, place] = torch.tensor(ids)
            mask[row, place] = 1
        return tokens.to(self._device), mask.to(self._device)

    @property
    def _pad(self) -> int:
        """What fills a batch up: any token, as no attention falls on it."""
        return self._tokenizer.pad_token_id or 0

    def _ends(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's, and those of the base's generation."""
        known = self._model.generation_config.eos_token_id
        ends = known if isinstance(known, list) else [known]
        return [
            end for end in dict.fromkeys([*ends, self._tokenizer.eos_token_id]) if end is not None
        ]
