"""What requests may say and what they are told: the JSON bodies of the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
)
from pydantic_core import PydanticCustomError

from core.recipe_section import Name
from core.recipe_serving import RequestLimits
from core.teacher import Completion, Usage
from serving.answers import Answer, Question
from serving.models import Description


class Body(BaseModel):
    """Base of the bodies: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Result(Body):
    """The answer to one text."""

    label: str
    """The most probable choice."""
    probabilities: dict[str, float]
    """Of every choice; they sum to 1."""
    answered_by: str | None = None
    """Who did, where several models stand behind one name: `canary`, or a cascade's model."""


class Chosen(Body):
    """The answer to one question with choices of its own."""

    choice: str
    """The most probable choice."""
    index: int
    """Its number among the question's choices, from 0."""
    probabilities: list[float]
    """Of every choice, in the order of the question; they sum to 1."""
    answered_by: str | None = None
    """Who did, where several models stand behind one name: `canary`, or a cascade's model."""


class TokenUsage(Body):
    """Tokens that the model's engine counted for a request."""

    tokens_in: int | None
    """Prompt tokens, cached ones included."""
    tokens_cached: int | None
    """Prompt tokens that the prefix cache answered."""
    tokens_out: int | None
    """Generated tokens."""


class ClassifyResponse(Body):
    """Answer of `POST /v1/classify`."""

    model: str
    """The model that answered."""
    results: list[Result]
    """One per text, in their order."""
    usage: TokenUsage | None = None
    """Absent where the model does not count."""


class ChooseResponse(Body):
    """Answer of `POST /v1/multiple-choice`."""

    model: str
    """The model that answered."""
    results: list[Chosen]
    """One per question, in their order."""
    usage: TokenUsage | None = None
    """Absent where the model does not count."""


class CompletionChoice(Body):
    """One text."""

    index: int
    """From 0."""
    text: str
    finish_reason: str
    """`stop` or `length`."""


class CompletionUsage(Body):
    """Tokens of a request, in OpenAI's words; null where nobody has counted them."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int
    prompt_tokens_details: dict[str, int | None]
    """`cached_tokens`: those that the prefix cache answered."""


class CompletionResponse(Body):
    """Answer of `POST /v1/completions`, in OpenAI's form."""

    object: str = "text_completion"
    model: str
    choices: list[CompletionChoice]
    """As many as the teacher was asked for when it answered the training rows."""
    usage: CompletionUsage


class ModelInfo(Body):
    """A model that can be asked."""

    id: str
    """Its name in requests."""
    object: str = "model"
    """As in the OpenAI API."""
    role: str
    """`student`, `teacher` or `cascade`."""
    family: str
    """Such as `encoder`."""
    choices: list[str] | None
    """What it chooses from; null where every question brings its own choices."""
    max_tokens: int | None
    """Tokens of an input that it reads; longer ones are cut. Null where it refuses them."""
    runs_on: str
    """Device and backend."""
    revision: str
    """A hash of its files; empty while it is not loaded."""

    @classmethod
    def of(cls, name: str, told: Description) -> ModelInfo:
        """What is told of a model, without its card."""
        return cls(id=name, **_told(told))


class ModelCard(ModelInfo):
    """The same with its card."""

    card: str
    """The model card, Markdown."""

    @classmethod
    def of(cls, name: str, told: Description) -> ModelCard:
        """All that is told of a model."""
        return cls(id=name, card=told.card, **_told(told))


class Models(Body):
    """Answer of `GET /v1/models`."""

    object: str = "list"
    """As in the OpenAI API."""
    data: list[ModelInfo]
    """All models of this application."""


class Problem(Body):
    """Body of every answer that is not 200."""

    detail: str
    """What is wrong with the request."""


class Health(Body):
    """Answer of the probes."""

    status: str
    """`ok`."""


@dataclass(frozen=True)
class Requests:
    """The bodies of requests, within the limits of an endpoint."""

    classify: type[Body]
    """Of `POST /v1/classify`."""
    choose: type[Body]
    """Of `POST /v1/multiple-choice`."""
    complete: type[Body]
    """Of `POST /v1/completions`."""


def request_bodies(limits: RequestLimits, models: Sequence[str]) -> Requests:
    """The bodies of requests, so that the OpenAPI page tells the limits and the models.

    Args:
        limits: Of the endpoint.
        models: Their names; another is not found, which is no fault of the body.
    """
    model: Any = Annotated[
        Name,
        Field(description="One of `GET /v1/models`.", json_schema_extra={"enum": list(models)}),
    ]
    text = Annotated[
        str,
        Field(max_length=limits.characters, json_schema_extra={"pattern": r"\S"}),
        AfterValidator(_not_blank),
    ]
    question = create_model(
        "Question",
        __base__=Body,
        __doc__="A question with choices of its own.",
        question=Annotated[text, Field(description="What is asked.")],
        choices=Annotated[
            list[text],
            Field(
                min_length=2,
                max_length=limits.choices,
                description="What to choose from. It is read behind the question.",
            ),
        ],
    )

    def body(name: str, one: Any, what: str, doc: str) -> type[Body]:
        several = Annotated[list[one], Field(min_length=1, max_length=limits.inputs)]
        # Told apart by hand, so that an error speaks of the one form that was sent.
        either = Annotated[
            Annotated[one, Tag(what)] | Annotated[several, Tag(f"{what}s")],
            Discriminator(_form(what)),
        ]
        return create_model(
            name,
            __base__=Body,
            __doc__=doc,
            model=model,
            input=Annotated[either, Field(description=f"A {what}, or a list of {what}s.")],
        )

    return Requests(
        body("ClassifyRequest", text, "text", "Body of `POST /v1/classify`."),
        body("ChooseRequest", question, "question", "Body of `POST /v1/multiple-choice`."),
        create_model(
            "CompletionRequest",
            __base__=Body,
            __doc__="Body of `POST /v1/completions`.",
            model=model,
            prompt=Annotated[text, Field(description="What to write on from.")],
        ),
    )


def questions_of(body: Any) -> list[Question]:
    """What a request asks."""
    inputs = body.input if isinstance(body.input, list) else [body.input]
    return [
        Question(one) if isinstance(one, str) else Question(one.question, tuple(one.choices))
        for one in inputs
    ]


def classified(model: str, answers: list[Answer]) -> ClassifyResponse:
    """Answer of `POST /v1/classify`."""
    return ClassifyResponse(
        model=model,
        results=[
            Result(
                label=one.choices[one.best],
                probabilities=dict(zip(one.choices, one.probabilities, strict=True)),
                answered_by=one.answered_by or None,
            )
            for one in answers
        ],
        usage=_usage(answers),
    )


def chosen(model: str, answers: list[Answer]) -> ChooseResponse:
    """Answer of `POST /v1/multiple-choice`."""
    return ChooseResponse(
        model=model,
        results=[
            Chosen(
                choice=one.choices[one.best],
                index=one.best,
                probabilities=one.probabilities,
                answered_by=one.answered_by or None,
            )
            for one in answers
        ],
        usage=_usage(answers),
    )


def completed(model: str, texts: list[Completion]) -> CompletionResponse:
    """Answer of `POST /v1/completions`."""
    used = sum((one.usage for one in texts), Usage())
    return CompletionResponse(
        model=model,
        choices=[
            CompletionChoice(index=number, text=one.text, finish_reason=one.finish)
            for number, one in enumerate(texts)
        ],
        usage=CompletionUsage(
            prompt_tokens=used.tokens_in,
            completion_tokens=used.tokens_out,
            total_tokens=used.tokens,
            prompt_tokens_details={"cached_tokens": used.tokens_cached},
        ),
    )


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty_text", "the text is empty")
    return text


def _form(what: str) -> Callable[[Any], str]:
    def form(value: Any) -> str:
        return f"{what}s" if isinstance(value, list) else what

    return form


def _told(told: Description) -> dict[str, Any]:
    return {
        "role": told.role,
        "family": told.family,
        "choices": None if told.choices is None else list(told.choices),
        "max_tokens": told.max_tokens,
        "runs_on": told.runs_on,
        "revision": told.revision,
    }


def _usage(answers: list[Answer]) -> TokenUsage | None:
    counted = [answer.usage for answer in answers if answer.usage is not None]
    if not counted:
        return None
    total = sum(counted, Usage())
    return TokenUsage(**{name: getattr(total, name) for name in TokenUsage.model_fields})
