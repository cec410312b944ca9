"""How a finished student that writes is asked: the same in training, in evaluation and in serving.

A student's folder says it in `stillhouse.json`, beside the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "stillhouse.json"

SENTINEL = "stillhouse-answer"
"""An answer that no chat template changes."""

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

    @classmethod
    def of_base(cls, family: str, max_length: int, max_answer_length: int) -> StudentReading:
        """How a model is asked that nothing has been taught yet.

        Args:
            family: `seq2seq` or `causal`.
            max_length: Tokens of an input at most.
            max_answer_length: Tokens of an answer at most.
        """
        return cls(family, None, "none", "", max_length, max_answer_length)

    def write(self, folder: Path) -> None:
        """Say it in a student's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def prompt_ids(self, messages: list[Message], tokenizer: Any) -> list[int]:
        """The tokens that ask for an answer.

        Args:
            messages: The last is the user's.
            tokenizer: The student's, of transformers.
        """
        return self.read([prefixed(messages, self.answer_prefix)], tokenizer)[0][0]

    def read(
        self, conversations: Sequence[list[Message]], tokenizer: Any
    ) -> list[tuple[list[int], bool]]:
        """The tokens of conversations as they stand, and of each whether some were cut.

        A causal student reads its chat template, where its tokenizer has one, and what is too long
        loses its begin; others read plain text, which loses its end.
        """
        texts = ["\n".join(turn["content"] for turn in turns) for turns in conversations]
        if self.family == "seq2seq":
            cut = tokenizer(texts, truncation=True, max_length=self.max_length)
            overflowing = [bool(one.overflowing) for one in cut.encodings]
            return list(zip(cut["input_ids"], overflowing, strict=True))
        templated = bool(tokenizer.chat_template)
        if templated:
            texts = tokenizer.apply_chat_template(
                list(conversations), tokenize=False, add_generation_prompt=True
            )
        read = tokenizer(texts, add_special_tokens=not templated)["input_ids"]
        return [(ids[-self.max_length :], len(ids) > self.max_length) for ids in read]

    def answer_ids(self, texts: list[str], tokenizer: Any) -> list[list[int]]:
        """The tokens of answers, each with what ends it: what the student writes behind a prompt.

        Args:
            texts: The answers.
            tokenizer: The student's, of transformers.
        """
        if self.family == "seq2seq":
            found: list[list[int]] = tokenizer(texts)["input_ids"]
        else:
            end = end_of_turn(tokenizer)
            whole = [text + end for text in texts]
            found = tokenizer(whole, add_special_tokens=False)["input_ids"]
        return found


def end_of_turn(tokenizer: Any) -> str:
    """What follows an answer in the chat template of a causal model, or the end of a text."""
    if not tokenizer.chat_template:
        return str(tokenizer.eos_token)
    turns = [{"role": "user", "content": "."}, {"role": "assistant", "content": SENTINEL}]
    rest = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(SENTINEL)[2]
    # Up to the token that ends the turn: what may come behind it nobody waits for.
    ends = [rest.find(end) + len(end) for end in tokenizer.all_special_tokens if end in rest]
    return rest[: min(ends)] if ends else str(tokenizer.eos_token)


def text_of(content: Any) -> str:
    """A message's text; OpenAI's API also takes it in parts."""
    if isinstance(content, str):
        return content
    parts = (part.get("text") if isinstance(part, dict) else part for part in content or [])
    return "".join(part for part in parts if isinstance(part, str))


def prefixed(messages: list[Message], prefix: str) -> list[Message]:
    """The same conversation, with the last message beginning with a prefix."""
    last = messages[-1]
    return [*messages[:-1], last | {"content": prefix + last["content"]}]
