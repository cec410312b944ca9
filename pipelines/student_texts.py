"""Answers of students that write: batched greedy generation in transformers, turn by turn."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from core.placement import placed
from core.recipe_section import Device
from core.student_reading import StudentReading
from pipelines.asked_texts import Asked
from pipelines.row_work import Row

BATCH_ROWS = 16
"""Rows that a student is asked about at once."""

WEIGHTS_SHARE = 0.7
"""Of a GPU's memory, that weights may take: the rest is for what is written."""


WRITTEN_TOGETHER = pa.schema(
    [
        ("id", pa.string()),
        ("replies", pa.list_(pa.string())),
        ("tokens_in", pa.int32()),
        ("tokens_out", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Replies:
    """What a model replied to the turns of one row."""

    texts: list[str]
    tokens_in: int
    """Of all prompts, each with the history before it."""
    tokens_out: int
    seconds: float
    """Of the batch that it was written in, an equal part for each of its rows."""


def write(
    folder: Path, questions: Sequence[tuple[str, Asked]], reading: StudentReading, device: Device
) -> dict[str, Replies]:
    """What a student writes, by Ray Data.

    Args:
        folder: Its Hugging Face folder.
        questions: Id and what is said; no two ids are the same.
        reading: How it is asked.
        device: What it was trained on; where that has GPUs, it runs on as many of one machine as
            hold it.

    Returns:
        By id.
    """
    # Long ones beside long ones: what is padded takes time.
    ordered = sorted(questions, key=lambda question: max(map(len, question[1].turns)))
    rows = [{"id": row_id, "system": a.system, "turns": a.turns} for row_id, a in ordered]
    return {
        row["id"]: Replies(row["replies"], row["tokens_in"], row["tokens_out"], row["seconds"])
        for row in asked_student(WritingPredictor, folder, (reading,), rows, device)
    }


def asked_student(
    predictor: type[LoadedStudent],
    folder: Path,
    arguments: tuple[Any, ...],
    rows: list[Row],
    device: Device,
    *,
    blocks: int = 1,
) -> Iterator[Row]:
    """What a student makes of rows, by Ray Data.

    Args:
        predictor: The actor that has it; a batch in, a batch out.
        folder: The student's Hugging Face folder.
        arguments: What else the actor is made with.
        rows: In the order in which they are put together to batches.
        device: What the student was trained on, as of `write`.
        blocks: Parts that the rows come back in: as soon as one is done.
    """
    gpus = gpus_that_hold(folder, device)
    dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        predictor,
        fn_constructor_args=(folder, *arguments),
        fn_constructor_kwargs={"gpus": gpus},
        batch_size=BATCH_ROWS,
        batch_format="pyarrow",
        concurrency=1,
        num_cpus=1,
        num_gpus=gpus,
        **(placed("trainer", device.kind) if gpus else placed("cpu")),
    )
    return iter(dataset.iter_rows())


def gpus_that_hold(folder: Path, device: Device) -> int:
    """GPUs of a kind that hold a model's weights and leave room to write; 0 on a CPU.

    Args:
        folder: The model's; its weights are taken to be written as they are loaded.
        device: What one of them is. One is enough where nobody has said how much memory it has.
    """
    if not device.gpus:
        return 0
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if device.memory is None:
        return 1
    return max(1, math.ceil(weights / (WEIGHTS_SHARE * device.memory)))


class LoadedStudent:
    """A causal or a seq2seq student in memory, and how it is asked."""

    def __init__(self, folder: Path, reading: StudentReading, *, gpus: int = 0) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        self.reading = reading
        self.causal = reading.family == "causal"
        model = AutoModelForCausalLM if self.causal else AutoModelForSeq2SeqLM
        self.device = torch.device("cuda" if gpus else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        if gpus > 1:  # its layers are dealt out among them
            loaded = model.from_pretrained(folder, dtype="auto", device_map="auto")
        else:
            # A CPU computes in bfloat16 many times slower.
            loaded = model.from_pretrained(folder, dtype="auto" if gpus else torch.float32)
            loaded = loaded.to(self.device)
        self.model = loaded.eval()

    def padded(self, prompts: list[list[int]]) -> tuple[Any, Any]:
        """Tokens and mask, [B, L]; a causal student's prompts all end where it begins to write."""
        import torch

        tokens = torch.full((len(prompts), max(map(len, prompts))), self.pad)
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(prompts):
            place = slice(-len(ids), None) if self.causal else slice(len(ids))
            tokens[row, place] = torch.tensor(ids)
            mask[row, place] = 1
        return tokens.to(self.device), mask.to(self.device)

    @property
    def pad(self) -> int:
        """What fills a batch up: any token, as no attention falls on it."""
        return self.tokenizer.pad_token_id or 0

    def up_to_the_end(self, written: list[int]) -> list[int]:
        """A row of a batch without what fills it up after its end."""
        ends = set(self.ends())
        end = next((at for at, token in enumerate(written) if token in ends), len(written) - 1)
        return written[: end + 1]

    def ends(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's, and those of the base's generation."""
        known = self.model.generation_config.eos_token_id
        ends = known if isinstance(known, list) else [known]
        return [
            end for end in dict.fromkeys([*ends, self.tokenizer.eos_token_id]) if end is not None
        ]


class WritingPredictor(LoadedStudent):
    """A Ray Data actor that has a student answer conversations."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Put `replies` in the place of `system` and `turns`, with the tokens that they took."""
        began = time.monotonic()
        rows = batch.to_pylist()
        asked = [Asked(row["system"], row["turns"]) for row in rows]
        found = [{"id": row["id"], "replies": [], "tokens_in": 0, "tokens_out": 0} for row in rows]
        for turn in range(max(len(one.turns) for one in asked)):
            open_ = [pair for pair in zip(asked, found, strict=True) if turn < len(pair[0].turns)]
            prompts = [
                self.reading.prompt_ids(one.messages(row["replies"]), self.tokenizer)
                for one, row in open_
            ]
            for (_, row), prompt, written in zip(
                open_, prompts, self._written(prompts), strict=True
            ):
                text = self.tokenizer.decode(written, skip_special_tokens=True)
                row["replies"].append(text)
                row["tokens_in"] += len(prompt)
                row["tokens_out"] += len(written)
        table = pa.Table.from_pylist(found, schema=WRITTEN_TOGETHER)
        seconds = [(time.monotonic() - began) / len(rows)] * len(rows)
        return table.append_column("seconds", pa.array(seconds, pa.float64()))

    def _written(self, prompts: list[list[int]]) -> list[list[int]]:
        """The tokens that are written after each prompt, up to the end of the answer."""
        import torch

        tokens, mask = self.padded(prompts)
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=self.reading.max_answer_length,
                do_sample=False,
                num_beams=1,
                # Of the base these may say how to draw.
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=self.ends(),
                pad_token_id=self.pad,
            )
        # A seq2seq model begins with the token that starts its decoder.
        begin = tokens.shape[1] if self.causal else 1
        return [self.up_to_the_end(row) for row in written[:, begin:].tolist()]
