"""What students that write have in common: rows become prompts and targets, by task."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.recipe_students import ChoiceObjective, LogitObjective, SequenceObjective
from training.family import Family
from training.texts import ANSWER, LikelyTokens, TextUnits, texts_of

Ids = list[int]

READ_AT_ONCE = 1_000
"""Rows whose texts the tokenizer gets in one call: what it tells of a text is far larger than the
text."""


class Writer(Family):
    """A model that writes."""

    columns: ClassVar[list[str]] = [
        "id",
        "messages",
        "answer",
        "rationales",
        "token_ids",
        "top_ids",
        "top_logprobs",
        "weight",
    ]
    units_class: ClassVar[type[TextUnits]]

    def units(self, table: pa.Table) -> TextUnits:
        """A unit for every task of a row."""
        objective = self.student.objective
        assert not isinstance(objective, ChoiceObjective), "the recipe has checked it"
        weights = _task_weights(objective)
        tasks = {task: number for number, task in enumerate(weights)}
        longest = self.student.train.max_answer_length
        reading = self.reading
        prompts: list[Ids] = []
        targets: list[Ids] = []
        likely: list[LikelyTokens] = []
        task: list[str] = []
        row_weights: list[float] = []
        of_row: list[list[int]] = []
        cut = 0
        for begin in range(0, table.num_rows, READ_AT_ONCE):
            rows = table.slice(begin, READ_AT_ONCE).to_pylist()
            texts = [list(texts_of(row, objective)) for row in rows]
            flat = [text for asked in texts for text in asked]
            read = reading.read([text.messages for text in flat], self.tokenizer)
            if isinstance(objective, LogitObjective):
                written = [row["token_ids"] for row in rows]
                likely += [_likely(row, longest) for row in rows]
            else:
                written = reading.answer_ids([text.target for text in flat], self.tokenizer)
            were_cut = [c or len(w) > longest for (_, c), w in zip(read, written, strict=True)]
            for row, asked in zip(rows, texts, strict=True):
                first = len(task)
                task += [text.task for text in asked]
                row_weights += [row["weight"]] * len(asked)
                of_row.append(list(range(first, len(task))))
                cut += any(were_cut[unit - len(prompts)] for unit in of_row[-1])
            prompts += [ids for ids, _ in read]
            targets += [ids[:longest] for ids in written]
        lengths = np.array([[len(p), len(t)] for p, t in zip(prompts, targets, strict=True)])
        return self.units_class(
            of_row=of_row,
            sides=self.sides(lengths),
            sequences=np.ones(len(prompts), dtype=np.int64),
            tokens=lengths.sum(axis=1),
            cut=cut,
            prompts=[torch.tensor(ids, dtype=torch.int32) for ids in prompts],
            targets=[torch.tensor(ids, dtype=torch.int32) for ids in targets],
            likely=likely or None,
            row_weights=torch.tensor(row_weights),
            task_weights=torch.tensor([weights[name] for name in task]),
            task=torch.tensor([tasks[name] for name in task]),
            pad_token=self.pad_token,
            objective=objective,
            **self.beside(),
        )

    @abstractmethod
    def sides(self, lengths: np.ndarray) -> np.ndarray:
        """As `Units.sides`, of units with so many tokens of prompt and target; [U, 2] int64."""

    def beside(self) -> dict[str, Any]:
        """What units of this family must know beside that."""
        return {}

    def first_prompts(self, rows: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        """Of some rows, as in `padded`, for a finished student to answer."""
        prompts = [self.reading.prompt_ids(row["messages"], self.tokenizer) for row in rows]
        return padded([torch.tensor(ids) for ids in prompts], self.pad_token)

    @property
    def pad_token(self) -> int:
        """What fills a batch up: any token, as no loss and no attention falls on it."""
        return self.tokenizer.pad_token_id or 0


def padded(sequences: list[Tensor], value: int) -> tuple[Tensor, Tensor]:
    """Sequences as one int64 tensor, and the mask of what is not padding, both [B, L]."""
    tokens = pad_sequence(sequences, batch_first=True, padding_value=value).long()
    lengths = torch.tensor([len(ids) for ids in sequences])
    return tokens, (torch.arange(tokens.shape[1]) < lengths[:, None]).long()


def _task_weights(objective: SequenceObjective | LogitObjective) -> dict[str, float]:
    if isinstance(objective, LogitObjective):
        return {ANSWER: 1.0}
    return {ANSWER: objective.answer_weight, **objective.rationale_weights}


def _likely(row: dict[str, Any], longest: int) -> LikelyTokens:
    ids, top_ids = row["token_ids"], row["top_ids"]
    shape = (len(ids), -1)
    return LikelyTokens(
        torch.tensor(top_ids, dtype=torch.int32).reshape(shape)[:longest],
        torch.tensor(row["top_logprobs"], dtype=torch.float16).reshape(shape)[:longest],
    )
