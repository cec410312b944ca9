"""Prompts are Jinja files below `pipelines/prompts/`; a file's hash is the prompt's version."""

from __future__ import annotations

import hashlib
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2

from core.errors import UseError

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


def render(name: str, **values: Any) -> str:
    """Fill in a prompt file."""
    return _environment().get_template(name).render(**values)
