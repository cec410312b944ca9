"""What a model is asked about a row: a prompt filled in with the row's fields, turn by turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2

from core.student_reading import Message
from core.teacher import Sampling, conversation
from pipelines.prompt_files import compile_prompt

FILLING_ERRORS = (jinja2.TemplateRuntimeError, TypeError, ValueError)
"""What filling in raises where a row's fields do not fit the prompt."""


@dataclass(frozen=True)
class Asked:
    """What is said to a model about one row."""

    system: str
    turns: list[str]
    """What the user says: one text, or several that are answered one after the other."""

    def messages(self, replies: Sequence[str] = ()) -> list[Message]:
        """The conversation up to the turn that is to be answered.

        Args:
            replies: To the turns before it.
        """
        history = tuple(zip(self.turns, replies, strict=False))
        so_far = Sampling(max_tokens=1, system=self.system, history=history)
        return conversation(self.turns[len(replies)], so_far)


def fill_in(user: str, system: str, fields: Mapping[str, Any], turns: str | None = None) -> Asked:
    """Fill in a prompt.

    Args:
        user: Its Jinja text; of a conversation filled in for each turn, which is `turn`.
        system: The same of what stands before the conversation; empty for nothing.
        fields: Of the row.
        turns: Of conversations: the field with what the user says, one text or a list of them.

    Raises:
        Exception: One of `FILLING_ERRORS`.
    """
    template = _compiled(user)
    said = _compiled(system).render(fields) if system else ""
    if turns is None:
        return Asked(said, [template.render(fields)])
    listed = _turns(fields, turns)
    return Asked(said, [template.render({**fields, "turn": turn}) for turn in listed])


def _turns(fields: Mapping[str, Any], name: str) -> list[str]:
    value = fields.get(name)
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"there is no text and no list of texts under '{name}'")
    if not all(isinstance(turn, str) and turn.strip() for turn in listed):
        raise ValueError(f"what is under '{name}' is not all text, or holds an empty turn")
    return listed


@cache
def _compiled(text: str) -> jinja2.Template:
    return compile_prompt(text)
