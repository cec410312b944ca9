"""Prompts are Jinja files below `pipelines/prompts/`; a file's hash is the prompt's version."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import deque
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes

from core.errors import UseError
from pipelines.permutations import LETTERS

PROMPTS = Path(__file__).parent / "prompts"


@cache
def _environment() -> jinja2.Environment:
    # No HTML escaping: a prompt is plain text. An unknown name is an error, not an empty string.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PROMPTS),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701
        keep_trailing_newline=True,
    )
    # Jinja's own `tojson` writes for HTML: a teacher would copy its escapes.
    environment.filters["json"] = partial(json.dumps, ensure_ascii=False)
    environment.filters.update(first_words=first_words, lettered=lettered)
    return environment


def prompt_version(name: str) -> str:
    """SHA-256 of a prompt file: part of the id of every row that it makes."""
    return hashlib.sha256((PROMPTS / name).read_bytes()).hexdigest()


def compile_prompt(text: str) -> jinja2.Template:
    """A prompt that stands in a recipe.

    Raises:
        UseError: It is not a Jinja template.
    """
    try:
        return _environment().from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise UseError(
            "the prompt", f"line {error.lineno} is not Jinja: {error.message}.", "Mend it."
        ) from None


def parse_prompt(text: str) -> nodes.Template:
    """The syntax tree of a prompt that compiles."""
    return _environment().parse(text)


def lettered(choices: Sequence[str]) -> str:
    """Choices as a list, a line each, with letters: `A. lake`.

    Raises:
        ValueError: There are more of them than letters.
    """
    if len(choices) > len(LETTERS):
        raise ValueError(f"{len(choices)} choices are more than there are letters")
    return "\n".join(
        f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)
    )


def first_words(text: str, number: int) -> str:
    """A text up to the end of its first so many words; the blanks between them stay."""
    ends = itertools.islice(re.finditer(r"\S+", text), number)
    last = deque(ends, maxlen=1)
    return text[: last[0].end()] if last else text


def render(name: str, **values: Any) -> str:
    """Fill in a prompt file."""
    return _environment().get_template(name).render(**values)
