"""Prompt templates: those that come with Stillhouse, and those that a user puts beside a recipe.

A template is a Jinja file. What stands before its text, between two lines of three dashes, is YAML:

    ---
    about: One sentence for whoever chooses among templates.
    system: What stands before the conversation.
    answer: {pattern: 'Answer:(.*)'}
    ---
    Question: {{ question }}

`system`, `answer` and `json_schema` are those of `core.recipe_prompts.Prompt`. A file without such
a head is the text alone. The library's are in `pipelines/prompts/`, a folder for each kind of task.
Their wording is ours: the appendix of 2410.18588, which has the paper's, is not in what we have.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jinja2 import meta
from pydantic import ValidationError

from core.errors import UseError
from core.recipe_prompts import Answer, Prompt, combined
from core.recipe_section import Section
from pipelines.prompt_files import PROMPTS, compile_prompt, parse_prompt

INLINE = "the prompt"
"""How a prompt is called that stands in a recipe."""

FENCE = "---"
"""The line before and behind a template's head."""


class Head(Section):
    """What a template says of itself."""

    about: str = ""
    """One sentence for whoever chooses among templates."""
    system: str = ""
    """Jinja text that stands before the conversation."""
    answer: Answer | None = None
    """How the answer is found in what is written."""
    json_schema: dict[str, Any] | None = None
    """What is written is held to this schema by structured decoding."""


def template_names() -> list[str]:
    """The templates of the library, as recipes name them."""
    files = sorted(PROMPTS.glob("*/*.j2"))
    return [
        f"{file.parent.name}/{file.stem}"
        for file in files
        if file.read_text(encoding="utf-8").startswith(f"{FENCE}\n")
    ]


def read_template(name: str) -> tuple[Head, Prompt]:
    """A template of the library.

    Raises:
        UseError: There is none of this name.
    """
    return parse_template(template_text(name), name)


def template_text(name: str) -> str:
    """The file of a template of the library.

    Raises:
        UseError: There is none of this name.
    """
    known = template_names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        mend = f"Did you mean {close[0]}?" if close else f"It has: {', '.join(known)}."
        raise UseError("the prompt library", f"it has no template '{name}'.", mend)
    return (PROMPTS / f"{name}.j2").read_text(encoding="utf-8")


def read_prompt(prompt: str | Prompt, kind: str | None, folder: Path) -> str | Prompt:
    """A prompt with its texts, wherever a recipe has it from.

    Args:
        prompt: As the recipe has it.
        kind: The task's, for names without a slash; None where there is no task.
        folder: The recipe's.

    Raises:
        UseError: There is no such template, or it is none.
    """
    if isinstance(prompt, str):
        _check(prompt, INLINE)
        return prompt
    if prompt.library is not None:
        name = prompt.library
        if "/" not in name and kind is not None:
            name = f"{kind}/{name}"
        return read_template(name)[1]
    if prompt.file is not None:
        file = folder / prompt.file
        return parse_template(_text_of(file), prompt.file)[1]
    for text in (prompt.text, prompt.system):
        _check(text, INLINE)
    return prompt


def parse_template(text: str, name: str) -> tuple[Head, Prompt]:
    """A template's head, and the prompt that it is.

    Raises:
        UseError: It is not in the form of a template.
    """
    head, body = _divided(text, name)
    if not body.strip():
        raise UseError(name, "this template has no text.", "Write what the model is asked.")
    for part in (body, head.system):
        _check(part, name)
    return head, Prompt(
        user=body,
        system=head.system,
        answer=head.answer,
        json_schema=head.json_schema,
        source=name,
    )


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UseError(str(file), "this is not UTF-8 text.", "Save it as UTF-8.") from None


def _divided(text: str, name: str) -> tuple[Head, str]:
    """Head and text; the end of the last line is no part of the text."""
    lines = text.removesuffix("\n").split("\n")
    if lines[0] != FENCE:
        return Head(), "\n".join(lines)
    try:
        end = lines.index(FENCE, 1)
    except ValueError:
        raise UseError(
            name, f"its head begins with {FENCE} and does not end.", f"Put {FENCE} behind it."
        ) from None
    try:
        said = yaml.safe_load("\n".join(lines[1:end])) or {}
        return Head.model_validate(said), "\n".join(lines[end + 1 :])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"]) or "the head"
        cause = first["msg"].removeprefix("Value error, ")
        known = ", ".join(Head.model_fields)
        raise UseError(f"{name}, {key}", f"{cause}.", f"A head has: {known}.") from None
    except yaml.YAMLError as error:
        raise UseError(name, f"its head is not YAML: {error}.", "Mend the syntax.") from None


def _check(text: str, place: str) -> None:
    """Refuse a text that is no Jinja, or that wants other files: a run keeps the prompt itself.

    Raises:
        UseError: Saying which.
    """
    compile_prompt(text)
    others = list(meta.find_referenced_templates(parse_prompt(text)))
    if others:
        raise UseError(
            place,
            f"it includes another template, {others[0]}.",
            "Write it out: a run keeps each prompt whole.",
        )


def resolved(
    prompt: str | Prompt,
    kind: str | None,
    folder: Path,
    general: Answer | None,
    *,
    key: str,
    place: Callable[[str], str],
) -> str | Prompt:
    """`read_prompt`, with errors at a place of the recipe, and what the task says of answers.

    Args:
        prompt: As the recipe has it.
        kind: The task's.
        folder: The recipe's.
        general: How answers are found where the prompt does not say; None where there is no task.
        key: Of the prompt in the recipe.
        place: Tells the line of a key.

    Raises:
        UseError: As `read_prompt`.
    """
    try:
        found = read_prompt(prompt, kind, folder)
    except UseError as error:
        where = "" if error.place == INLINE else f"{error.place}: "
        raise UseError(place(key), f"{key}: {where}{error.cause}", error.mend) from None
    if isinstance(found, str) or found.answer is None:
        return found
    return found.model_copy(update={"answer": combined(general, found.answer)})
