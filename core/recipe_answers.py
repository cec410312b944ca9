"""What a recipe says of the answers that students learn: to what, and what is a right one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from core.recipe_prompts import Answer, Prompt, as_prompt, combined
from core.recipe_section import Section

CHOOSING = ("choices", "nli", "multiple_choice")
"""Kinds of which an answer is one of some choices."""

KINDS: dict[str, dict[str, Any]] = {
    "nli": {
        "choices": ["entailment", "neutral", "contradiction"],
        "prompt": {"library": "nli/vanilla"},
        "gold": "label",
    },
    "math": {
        "prompt": {"library": "math/vanilla"},
        "gold": "answer",
        "answer": {"form": "number"},
    },
    "multiple_choice": {
        "choices_field": "choices",
        "prompt": {"library": "multiple_choice/vanilla"},
        "gold": "answer",
        "answer": {"form": "letter"},
    },
    "summarization": {
        "document": "document",
        "prompt": {"library": "summarization/vanilla"},
        "metric": "entity_density",
    },
    "chat": {"turns": "turns", "prompt": {"library": "chat/vanilla"}, "metric": "judge"},
}
"""What is said of each kind where the recipe says nothing: the tasks of 2410.18588, in the fields
that the readers of its data sets make (`pipelines.datasets`)."""


class AnswerTask(Section):
    """What students are asked, and what is a right answer."""

    kind: Literal["choices", "text", "nli", "math", "multiple_choice", "summarization", "chat"]
    """`choices`: an answer is one of some choices; `text`: it is any text. The others are those
    with prompts in the library, and with names of fields, choices and forms of answers that need
    not be said: `nli`, `math`, `multiple_choice`, `summarization`, and `chat`, in which each reply
    is an answer."""
    choices: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=2)
    """Where an answer is one of some: the list, where it is the same for every row."""
    choices_field: str | None = None
    """The same: the field with a row's own list, where it is not."""
    turns: str | None = None
    """Of `chat`: the field with what the user says, a list of one text or of several. A model
    answers them one after the other, with its own earlier replies as history."""
    document: str | None = None
    """Of `summarization`: the field with the text that is summed up."""
    prompt: Annotated[str, Field(min_length=1)] | Prompt | None = None
    """The plain prompt that students see, in training and afterwards: Jinja text that is filled in
    with a row's fields, or a template. An encoder reads the choices beside it; for a student that
    writes they must stand in it. Of a chat it is filled in for each turn, which is `turn`."""
    system: str = ""
    """What stands before it in the conversation of a student that writes, where the prompt has no
    system text of its own."""
    gold: str | None = None
    """The field with the right answer: a choice, its letter or its number from 0, or a text. Rows
    that students learn from need none where they learn what teachers answered."""
    labels: Literal["teacher", "gold"] = "teacher"
    """What students learn as the answer: what teachers answered, or, for comparison, what the file
    says."""
    weight: Literal["equal", "agreement"] = "equal"
    """Weight of what a teacher answered: 1, or the share of its samples that answered so."""
    answer: Answer | None = None
    """How the answer is found in what a teacher wrote, where its prompt does not say; `form`, `map`
    and `ignore_case` go for students, too. If absent, all of the text is the answer: of choices it
    must be one, and other texts are learnt as they were written."""
    metric: Literal["accuracy", "entity_density", "judge"] | None = None
    """What makes an answer good: that it is the right one; entities of the document for each token
    of the summary; or what judges say. By the kind if absent, and for others accuracy."""

    @model_validator(mode="before")
    @classmethod
    def _as_its_kind_has_it(cls, said: Any) -> Any:
        if not isinstance(said, dict) or said.get("kind") not in KINDS:
            return said
        known = dict(KINDS[said["kind"]])
        if said.get("choices") is not None or said.get("choices_field") is not None:
            known = {k: v for k, v in known.items() if k not in ("choices", "choices_field")}
        if isinstance(said.get("answer"), dict) and "answer" in known:
            return {**known, **said, "answer": {**known["answer"], **said["answer"]}}
        return {**known, **said}

    @model_validator(mode="after")
    def _choices_come_from_one_place(self) -> Self:
        given = (self.choices is not None) + (self.choices_field is not None)
        if self.chooses and given != 1:
            raise ValueError(f"kind is {self.kind}: give either choices or choices_field")
        if not self.chooses and given:
            raise ValueError(f"kind is {self.kind}: leave choices and choices_field out")
        return self

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if self.prompt is None:
            raise ValueError("prompt is missing: give the plain prompt that students see")
        if (self.turns is not None) != self.converses:
            raise ValueError("turns is for kind chat, which needs it")
        if self.metric == "entity_density" and self.document is None:
            raise ValueError("metric is entity_density: name the field of the text in document")
        if self.measure == "accuracy" and self.converses:
            raise ValueError(
                "kind is chat, in which no reply is the right one: set metric to judge"
            )
        return self

    @model_validator(mode="after")
    def _labels_are_there(self) -> Self:
        if self.labels == "gold" and self.gold is None:
            raise ValueError("labels is gold: name the field that holds the right answer in gold")
        if self.labels == "gold" and self.converses:
            raise ValueError("labels is gold: students of a chat learn what teachers replied")
        if self.weight == "agreement" and (self.labels == "gold" or not self.extracts):
            raise ValueError(
                "weight is agreement: that is between answers of a teacher that are extracted; "
                "set weight to equal"
            )
        return self

    @property
    def chooses(self) -> bool:
        """Whether an answer is one of some choices."""
        return self.kind in CHOOSING

    @property
    def converses(self) -> bool:
        """Whether a row is a conversation, and an answer all that is replied in it."""
        return self.kind == "chat"

    @property
    def measure(self) -> str:
        """What makes an answer good."""
        return self.metric or "accuracy"

    @property
    def extracts(self) -> bool:
        """Whether an answer is found in a text, and is not the text as it was written."""
        return self.chooses or self.answer is not None

    @property
    def plain(self) -> Prompt:
        """The prompt that students see, with all that is read from what they write."""
        assert self.prompt is not None, "checked above"
        plain = as_prompt(self.prompt)
        changed = {
            "answer": combined(self.forms, plain.answer),
            "system": plain.system or self.system,
        }
        return plain.model_copy(update=changed)

    @property
    def forms(self) -> Answer | None:
        """What of the answer goes for every model: its forms, and not where it stands."""
        if self.answer is None:
            return None
        return Answer(**self.answer.model_dump(include={"form", "map", "ignore_case"}))
