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

    @abstractmethod
    def target(self, text: str) -> Ids:
        """What it is to write, with what ends a text."""

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
        for row in table.to_pylist():
            of_row.append([])
            was_cut = False
            for text in texts_of(row, objective):
                prompt, prompt_cut = reading.read(text.messages, self.tokenizer)
                target = self.target(text.target)
                if isinstance(objective, LogitObjective):
                    target = row["token_ids"]
                    likely.append(_likely(row, longest))
                was_cut = was_cut or prompt_cut or len(target) > longest
                of_row[-1].append(len(prompts))
                prompts.append(prompt)
                targets.append(target[:longest])
                task.append(text.task)
                row_weights.append(row["weight"])
            cut += was_cut
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
