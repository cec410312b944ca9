"""Several answers of a student to each row, drawn at a temperature: what its consistency is of.

Each prompt is read once, whatever the number of samples: what a causal model has computed of it is
repeated for them, and of a seq2seq model what the encoder made of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.recipe_section import Device
from core.student_reading import StudentReading
from pipelines.asked_texts import Asked
from pipelines.student_texts import LoadedStudent, asked_student

if TYPE_CHECKING:
    from torch import Tensor

DRAWN_TOGETHER = pa.schema(
    [
        ("id", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("tokens_in", pa.int32()),
        ("tokens_out", pa.int32()),
        ("seconds", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn."""

    samples: int
    """Of each row."""
    temperature: float
    max_tokens: int
    """Of each sample."""
    seed: int


@dataclass(frozen=True)
class Drawn:
    """The samples of one row."""

    id: str
    texts: list[str]
    tokens_in: int
    """Of the prompt."""
    tokens_out: int
    """Of all samples."""
    seconds: float
    """Of the batch that they were drawn in, an equal part for each of its rows."""


def draw_samples(
    folder: Path,
    questions: Sequence[tuple[str, Asked]],
    reading: StudentReading,
    device: Device,
    drawing: Drawing,
    *,
    blocks: int,
) -> Iterator[Drawn]:
    """Draw a student's answers, by Ray Data.

    Args:
        folder: The student's Hugging Face folder.
        questions: Id and what is said, in one turn; questions of like length side by side.
        reading: How the student is asked.
        device: What it was trained on, as of `pipelines.student_texts.write`.
        drawing: How samples are drawn; the draws of a batch follow from its rows and the seed.
        blocks: Parts that the questions come back in: as soon as one is done.
    """
    rows = [{"id": row_id, "system": a.system, "turns": a.turns} for row_id, a in questions]
    made_with = (reading, drawing)
    for row in asked_student(DrawingPredictor, folder, made_with, rows, device, blocks=blocks):
        yield Drawn(**row)


class DrawingPredictor(LoadedStudent):
    """A Ray Data actor that draws a student's answers."""

    def __init__(
        self, folder: Path, reading: StudentReading, drawing: Drawing, *, gpus: int = 0
    ) -> None:
        super().__init__(folder, reading, gpus=gpus)
        self._drawing = drawing

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Put `texts`, the tokens and the seconds in the place of `system` and `turns`."""
        import torch

        began = time.monotonic()
        rows = batch.to_pylist()
        prompts = [
            self.reading.prompt_ids(Asked(row["system"], row["turns"]).messages(), self.tokenizer)
            for row in rows
        ]
        # By the batch's first row: the draws are the same in every run that asks the same.
        torch.manual_seed(int(rows[0]["id"][:8], 16) + self._drawing.seed)
        written = iter(self._drawn(prompts))
        found = []
        for row, prompt in zip(rows, prompts, strict=True):
            samples = [next(written) for _ in range(self._drawing.samples)]
            found.append(
                {
                    "id": row["id"],
                    "texts": self.tokenizer.batch_decode(samples, skip_special_tokens=True),
                    "tokens_in": len(prompt),
                    "tokens_out": sum(map(len, samples)),
                }
            )
        seconds = (time.monotonic() - began) / len(rows)
        return pa.Table.from_pylist(
            [{**row, "seconds": seconds} for row in found], schema=DRAWN_TOGETHER
        )

    def _drawn(self, prompts: list[list[int]]) -> list[list[int]]:
        """The tokens of every sample, prompt by prompt."""
        import torch

        tokens, mask = self.padded(prompts)
        with torch.inference_mode():
            repeated = self._repeated if self.causal else self._to_be_repeated
            written = self.model.generate(
                **repeated(tokens, mask),
                max_new_tokens=self._drawing.max_tokens,
                do_sample=True,
                temperature=self._drawing.temperature,
                num_beams=1,
                # Of the base these may say something else.
                top_p=1.0,
                top_k=0,
                eos_token_id=self.ends(),
                pad_token_id=self.pad,
            )
        begin = tokens.shape[1] if self.causal else 1
        return [self.up_to_the_end(row) for row in written[:, begin:].tolist()]

    def _to_be_repeated(self, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
        """Prompts of a seq2seq model, whose encoder reads them before they are repeated."""
        number = self._drawing.samples
        return {"input_ids": tokens, "attention_mask": mask, "num_return_sequences": number}

    def _repeated(self, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
        """Prompts of a causal model, repeated, and what it has computed of all but their ends."""
        number, before = self._drawing.samples, mask[:, :-1]
        found = {
            "input_ids": tokens.repeat_interleave(number, dim=0),
            "attention_mask": mask.repeat_interleave(number, dim=0),
        }
        if not before.shape[1]:
            return found
        read = self.model(
            input_ids=tokens[:, :-1],
            attention_mask=before,
            position_ids=(before.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        read.past_key_values.batch_repeat_interleave(number)
        return {**found, "past_key_values": read.past_key_values}
