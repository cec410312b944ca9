"""What a recipe says of a prompt: its texts, and how the answer to it is found."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from core.recipe_section import Section


def _expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"this is no regular expression: {error}") from None
    return pattern


Expression = Annotated[str, AfterValidator(_expression)]
"""A regular expression of Python's; `(?s)` at its begin lets a dot match the end of a line."""


class Steps(Section):
    """An answer that is reached in steps, written as a JSON list of objects."""

    key: str
    """The answer is what stands under this key in the last step; case and underscores aside."""
    number: int = Field(default=1, ge=1)
    """Steps at least: where fewer were written to their end, there is no answer."""


class Answer(Section):
    """How the answer is found in what a model wrote."""

    cut_at: list[Annotated[str, Field(min_length=1)]] = []
    """Texts at which the model went on to something else, such as the next question: what follows
    the first of them is not read."""
    steps: Steps | None = None
    """The answer is the last of several, in JSON; if absent, it stands in the text itself."""
    pattern: Expression | None = None
    """Its last match is the answer, or the first group of it; the whole text if absent."""
    rationale_pattern: Expression | None = None
    """Its first match, or the first group of it, is why the answer is right; if absent, nothing
    is. Such a rationale is learnt by students that write and weigh it in their objective."""
    form: Literal["text", "letter", "number"] = "text"
    """`letter` also takes the letter of a choice, such as `(b)` or `B.`; `number` takes the last
    number of what was found, without its unit and its thousands commas."""
    map: dict[str, str] = {}
    """What an answer means, by what is written, such as `entails: entailment`."""
    ignore_case: bool = True
    """Whether `Yes` is `yes`. Blanks, quotes and the punctuation at the end never count."""

    @model_validator(mode="after")
    def _stands_in_one_place(self) -> Self:
        if self.steps is not None and self.pattern is not None:
            raise ValueError("steps and pattern both say where the answer stands: keep one")
        return self


class Prompt(Section):
    """What a model is asked: a template by its name, by its file, or as its parts."""

    library: str | None = None
    """One of those that come with Stillhouse, such as `math/chain_of_thought`; without a slash, one
    of the task's own kind, such as `chain_of_thought`. `stillhouse prompts` lists them."""
    file: str | None = None
    """A template file beside the recipe, in the form of the library's."""
    user: str | None = Field(default=None, min_length=1)
    """Jinja text that is filled in with a row's fields, such as `Question: {{ question }}`."""
    system: str = ""
    """Jinja text that stands before the conversation, or before the prompt of a model that does not
    chat."""
    answer: Answer | None = None
    """How the answer is found in what is written; as the task says if absent. What it says comes
    before what the task says."""
    json_schema: dict[str, Any] | None = None
    """What is written is held to this schema by structured decoding; recorded answers are as they
    are, and so is what a student writes in transformers."""
    source: str = ""
    """Of a prompt that was taken from a template: its name. A run writes it."""

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        given = [name for name in ("library", "file", "user") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of library, file and user")
        if self.user is None:
            own = [name for name in ("system", "answer", "json_schema") if getattr(self, name)]
            if own:
                raise ValueError(f"{own[0]} belongs to the template: write it there, or give user")
        return self

    @property
    def text(self) -> str:
        """The user's part, of a prompt that has its texts."""
        assert self.user is not None, "templates are read when a recipe is loaded"
        return self.user


def as_prompt(prompt: str | Prompt) -> Prompt:
    """A prompt that may be no more than its text."""
    return Prompt(user=prompt) if isinstance(prompt, str) else prompt


def combined(general: Answer | None, own: Answer | None) -> Answer | None:
    """How an answer is found where a task and a prompt of its both say something of it.

    Args:
        general: What the task says.
        own: What the prompt says: it comes first, key by key.
    """
    if general is None or own is None:
        return own or general
    said = {name: getattr(own, name) for name in own.model_fields_set}
    return Answer.model_validate(general.model_dump() | {n: _plain(v) for n, v in said.items()})


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, Section) else value
