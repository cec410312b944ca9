"""What a recipe says of the answers that students learn: to what, and how they are found."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

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


class Answer(Section):
    """How the answer is found in what a teacher wrote."""

    cut_at: list[Annotated[str, Field(min_length=1)]] = []
    """Texts at which the teacher went on to something else, such as the next question: what follows
    the first of them is not read."""
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


class AnswerTask(Section):
    """What students are asked, and what is a right answer."""

    kind: Literal["choices", "text"]
    """Whether an answer is one of some choices, or any text."""
    choices: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=2)
    """Of `choices`: the list, where it is the same for every row."""
    choices_field: str | None = None
    """Of `choices`: the field with a row's own list, where it is not."""
    prompt: str = Field(min_length=1)
    """The plain prompt that students see, in training and afterwards: Jinja text that is filled in
    with a row's fields. An encoder reads the choices beside it; for a student that writes they
    must stand in it."""
    system: str = ""
    """What stands before it in the conversation of a student that writes."""
    gold: str | None = None
    """The field with the right answer: a choice, its letter or its number from 0, or a text. Rows
    that students learn from need none where they learn what teachers answered."""
    labels: Literal["teacher", "gold"] = "teacher"
    """What students learn as the answer: what teachers answered, or, for comparison, what the file
    says."""
    weight: Literal["equal", "agreement"] = "equal"
    """Weight of what a teacher answered: 1, or the share of its samples that answered so."""
    answer: Answer | None = None
    """How the answer is found in what a teacher wrote. If absent, all of the text is the answer: of
    choices it must be one, and other texts are learnt as they were written."""

    @model_validator(mode="after")
    def _choices_come_from_one_place(self) -> Self:
        given = (self.choices is not None) + (self.choices_field is not None)
        if self.kind == "choices" and given != 1:
            raise ValueError("kind is choices: give either choices or choices_field")
        if self.kind == "text" and given:
            raise ValueError("kind is text: leave choices and choices_field out")
        return self

    @model_validator(mode="after")
    def _labels_are_there(self) -> Self:
        if self.labels == "gold" and self.gold is None:
            raise ValueError("labels is gold: name the field that holds the right answer in gold")
        if self.weight == "agreement" and (self.labels == "gold" or not self.extracts):
            raise ValueError(
                "weight is agreement: that is between answers of a teacher that are extracted; "
                "set weight to equal"
            )
        return self

    @property
    def extracts(self) -> bool:
        """Whether an answer is found in a text, and is not the text as it was written."""
        return self.kind == "choices" or self.answer is not None

    def messages(self, prompt: str) -> list[dict[str, str]]:
        """The conversation in which a student that writes is asked.

        Args:
            prompt: The plain prompt, filled in.
        """
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": prompt}]
