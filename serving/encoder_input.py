"""From questions to an encoder's token sequences, and from its logits to answers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.answers import Answer, Question
from serving.batches import Batch, Tokens, padded

# Its threads would take cores that Ray has given to others; a request is too short for them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class EncoderInput:
    """A student's tokenizer, with what its head makes of a question."""

    def __init__(self, folder: Path, choices: tuple[str, ...] | None) -> None:
        from transformers import AutoConfig, AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._choices = choices
        known = ("input_ids", "token_type_ids", "attention_mask")
        self.names = [name for name in known if name in tokenizer.model_input_names]
        """Of the model's inputs."""
        self._pad = tokenizer.pad_token_id or 0
        # A tokenizer that knows no limit says so by a number that no tokenizer can hold.
        most = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", 512)
        self.max_tokens: int = min(tokenizer.model_max_length, most)
        # The library's own call takes ten times as long for a single short text.
        self._tokenizer = tokenizer.backend_tokenizer
        # As training cut.
        self._tokenizer.enable_truncation(self.max_tokens, strategy="longest_first")
        self._tokenizer.no_padding()

    def sequences(self, questions: Sequence[Question]) -> list[list[Tokens]]:
        """What the model reads for each question: one sequence, or one for each of its choices."""
        if self._choices is not None:
            return [[one] for one in self._encode([question.text for question in questions])]
        own = [question.choices or () for question in questions]
        pairs = [
            (question.text, choice)
            for question, choices in zip(questions, own, strict=True)
            for choice in choices
        ]
        read = iter(self._encode(pairs))
        return [[next(read) for _ in choices] for choices in own]

    def _encode(self, texts: Sequence[Any]) -> list[Tokens]:
        # Its faster form leaves out where in the text each token stands.
        encoded = self._tokenizer.encode_batch_fast(texts)
        return [Tokens(one.ids, one.type_ids) for one in encoded]

    def batch(self, sequences: Sequence[Tokens]) -> Batch:
        """The model's inputs for some sequences."""
        found = padded(sequences, self._pad)
        return {name: found[name] for name in self.names}

    def answer(self, question: Question, logits: Sequence[float]) -> Answer:
        """What the logits of a question's sequences mean.

        Args:
            question: With choices of its own, or None.
            logits: One for each choice.
        """
        choices = self._choices or question.choices or ()
        return Answer(choices, softmax(logits))

    def fault(self, question: Question) -> str:
        """Why a question cannot be put to this model; nothing where it can."""
        if self._choices is None and question.choices is None:
            return "this model needs a question with choices: ask /v1/multiple-choice"
        if self._choices is not None and question.choices is not None:
            return "this model has choices of its own: ask /v1/classify"
        return ""


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities that sum to 1, in double precision.

    In plain Python: for a handful of choices numpy takes several times as long.
    """
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
