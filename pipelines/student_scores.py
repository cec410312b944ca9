"""What students that write think of each choice: the probability that they write just that.

An answer that is written counts only where it is one of the choices, letter by letter. The choice
that a student would most likely write, of all that there are, is told even where it writes
something else (METHODS of 2402.04616: two choices in free text fall below chance). A choice's
probability is that of its whole text with what ends it, so a longer one has no need to be made
comparable: all of them are texts that the student could have written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
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

SCORED_TOGETHER = pa.schema(
    [
        ("id", pa.string()),
        ("logprobs", pa.list_(pa.float32())),
        ("tokens", pa.int32()),
    ]
)


@dataclass(frozen=True)
class ChoiceScores:
    """What a student thinks of the choices of one row."""

    logprobs: list[float]
    """Natural-log probability of each choice's text, with what ends it."""
    tokens: int
    """That it read: the prompt once, and every choice."""
    seconds: float
    """Of the batch that it was scored in, an equal part for each of its rows."""

    @property
    def likeliest(self) -> int:
        """The choice that the student would most likely write, from 0; of equals the first."""
        return max(range(len(self.logprobs)), key=self.logprobs.__getitem__)


def score_choices(
    folder: Path,
    questions: Sequence[tuple[str, Asked, list[str]]],
    reading: StudentReading,
    device: Device,
) -> dict[str, ChoiceScores]:
    """Score the choices of every question, by Ray Data.

    Args:
        folder: The student's Hugging Face folder.
        questions: Id, what is said, and the choices; no two ids are the same.
        reading: How the student is asked.
        device: What it was trained on, as of `pipelines.student_texts.write`.

    Returns:
        By id.
    """
    # Long ones beside long ones: what is padded takes time.
    ordered = sorted(questions, key=lambda question: len(question[1].turns[-1]))
    rows = [
        {"id": row_id, "system": asked.system, "turns": asked.turns, "choices": choices}
        for row_id, asked, choices in ordered
    ]
    return {
        row["id"]: ChoiceScores(row["logprobs"], row["tokens"], row["seconds"])
        for row in asked_student(ScoringPredictor, folder, (reading,), rows, device)
    }


class ScoringPredictor(LoadedStudent):
    """A Ray Data actor that scores choices behind their prompts; a prompt is read once."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Put `logprobs` and `tokens` in the place of `system`, `turns` and `choices`."""
        began = time.monotonic()
        rows = batch.to_pylist()
        prompts = [
            self.reading.prompt_ids(Asked(row["system"], row["turns"]).messages(), self.tokenizer)
            for row in rows
        ]
        texts = [choice for row in rows for choice in row["choices"]]
        answers = self.reading.answer_ids(texts, self.tokenizer)
        of = [number for number, row in enumerate(rows) for _ in row["choices"]]
        scores = iter(self._logprobs(prompts, answers, of))
        lengths = iter(map(len, answers))
        found = [
            {
                "id": row["id"],
                "logprobs": [next(scores) for _ in row["choices"]],
                "tokens": len(prompt) + sum(next(lengths) for _ in row["choices"]),
            }
            for row, prompt in zip(rows, prompts, strict=True)
        ]
        table = pa.Table.from_pylist(found, schema=SCORED_TOGETHER)
        seconds = [(time.monotonic() - began) / len(rows)] * len(rows)
        return table.append_column("seconds", pa.array(seconds, pa.float64()))

    def _logprobs(
        self, prompts: list[list[int]], answers: list[list[int]], of: list[int]
    ) -> list[float]:
        """The log-probability of every answer behind its prompt.

        Args:
            prompts: Tokens of each.
            answers: Tokens of each.
            of: By answer: the number of its prompt.
        """
        import torch

        tokens, mask = self.padded(prompts)
        wanted = torch.zeros((len(answers), max(map(len, answers))), dtype=torch.int64)
        counts = torch.zeros(wanted.shape)
        for row, ids in enumerate(answers):
            wanted[row, : len(ids)] = torch.tensor(ids)
            counts[row, : len(ids)] = 1
        wanted, counts = wanted.to(self.device), counts.to(self.device)
        places = torch.tensor(of, device=self.device)
        behind = self._behind_causal if self.causal else self._behind_seq2seq
        with torch.inference_mode():
            logits = behind(tokens, mask, wanted, places)
            logprobs = logits.float().log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
            return list((logprobs * counts).sum(-1).tolist())

    def _behind_causal(self, tokens: Tensor, mask: Tensor, wanted: Tensor, places: Tensor) -> Any:
        """Logits [A, T, V] that predict the answers, each behind the cache of its prompt."""
        import torch

        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        read = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
        first = read.logits[places]
        before = wanted[:, :-1]
        if not before.shape[1]:
            return first
        cache = read.past_key_values
        cache.batch_select_indices(places)
        # What fills an answer up stands behind it, where it changes nothing that counts.
        steps = torch.arange(before.shape[1], device=self.device)
        rest = self.model(
            input_ids=before,
            attention_mask=torch.cat([mask[places], torch.ones_like(before)], dim=1),
            position_ids=mask.sum(-1)[places, None] + steps,
            past_key_values=cache,
        )
        return torch.cat([first, rest.logits], dim=1)

    def _behind_seq2seq(self, tokens: Tensor, mask: Tensor, wanted: Tensor, places: Tensor) -> Any:
        """Logits [A, T, V] of the decoder, which reads what the encoder made of the prompts."""
        from transformers.modeling_outputs import BaseModelOutput

        hidden = self.model.get_encoder()(input_ids=tokens, attention_mask=mask)
        before = wanted.roll(1, dims=1)
        before[:, 0] = self.model.config.decoder_start_token_id
        return self.model(
            encoder_outputs=BaseModelOutput(hidden.last_hidden_state[places]),
            attention_mask=mask[places],
            decoder_input_ids=before,
        ).logits
