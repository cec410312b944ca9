"""How a finished student that writes is asked: the same in training, in evaluation and in serving.

A student's folder says it in `stillhouse.json`, beside the tokenizer.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "stillhouse.json"

Message = dict[str, str]
"""One turn, as `core.rows.MESSAGE`."""


@dataclass(frozen=True)
class StudentReading:
    """What turns a conversation into a student's input."""

    family: str
    """`encoder`, `seq2seq` or `causal`."""
    head: str | None
    """Of an encoder."""
    objective: str
    """What it was trained by."""
    answer_prefix: str
    """What the last message begins with where the answer is wanted."""
    max_length: int
    """Tokens of an input at most."""
    max_answer_length: int
    """Tokens of an answer at most."""

    @classmethod
    def of(cls, folder: Path) -> StudentReading:
        """What a student's folder says."""
        return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        """Say it in a student's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def prompt_ids(self, messages: list[Message], tokenizer: Any) -> list[int]:
        """The tokens that ask for an answer.

        A causal student is asked in its chat template, where its tokenizer has one, and what is too
        long loses its begin; others read plain text, which loses its end.

        Args:
            messages: The last is the user's.
            tokenizer: The student's, of transformers.
        """
        last = messages[-1]
        messages = [*messages[:-1], last | {"content": self.answer_prefix + last["content"]}]
        if self.family == "causal" and tokenizer.chat_template:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids[-self.max_length :]
        text = "\n".join(message["content"] for message in messages)
        if self.family == "causal":
            ids = tokenizer(text)["input_ids"]
            return ids[-self.max_length :]
        cut: list[int] = tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]
        return cut
