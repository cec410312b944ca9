"""The HTTP face of served models: what a request may say, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError
from ray import serve
from ray.serve.handle import DeploymentHandle

from core.errors import StillhouseError
from core.recipe_section import Name
from core.teacher import Usage
from serving.answers import Answer

MAX_CHARACTERS = 8000
"""Of one text: more than any student reads, and little enough for a teacher's prompt."""

MAX_TEXTS = 256
"""In one request."""

DEPLOYMENT = "_front"
"""Name of the front among an application's deployments; no model of a recipe can have it."""

IN_FLIGHT = 1024
"""Requests that the front holds open at once; the rest wait in the proxy."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty_text", "the text is empty")
    return text


Text = Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_not_blank)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


def _kind_of_input(value: Any) -> str:
    return "texts" if isinstance(value, list) else "text"


class Body(BaseModel):
    """Base of the bodies: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class ClassifyRequest(Body):
    """Body of `POST /v1/classify`."""

    model: Name
    """One of `GET /v1/models`."""
    input: Annotated[
        # Told apart by hand, so that an error speaks of the one form that was sent.
        Annotated[Text, Tag("text")] | Annotated[Texts, Tag("texts")],
        Discriminator(_kind_of_input),
    ]
    """A text, or a list of texts."""


class Result(Body):
    """The answer to one text."""

    label: str
    """The most probable choice."""
    probabilities: dict[str, float]
    """Of every choice; they sum to 1."""


class TokenUsage(Body):
    """Tokens that the model's engine counted for a request."""

    tokens_in: int
    """Prompt tokens, cached ones included."""
    tokens_cached: int
    """Prompt tokens that the prefix cache answered."""
    tokens_out: int
    """Generated tokens."""


class ClassifyResponse(Body):
    """Answer of `POST /v1/classify`."""

    model: str
    """The model that answered."""
    results: list[Result]
    """One per text, in their order."""
    usage: TokenUsage | None = None
    """Absent where the model's engine does not count."""


class Model(Body):
    """A model that can be asked."""

    id: str
    """Its name in requests."""
    choices: list[str]
    """What it chooses from."""


class Models(Body):
    """Answer of `GET /v1/models`."""

    data: list[Model]
    """All models of this application."""


class Problem(Body):
    """Body of every answer that is not 200."""

    detail: str
    """What is wrong with the request."""


def bind_front(
    models: Mapping[str, serve.Application], choices: Mapping[str, tuple[str, ...]]
) -> serve.Application:
    """Lay out the deployment that hands requests on to the models' deployments.

    Args:
        models: By name, deployments with a `classify` method.
        choices: By name, what each model chooses from.
    """
    deployment = serve.deployment(
        name=DEPLOYMENT, max_ongoing_requests=IN_FLIGHT, ray_actor_options={"num_cpus": 0}
    )
    return deployment(serve.ingress()(Front)).bind(models, choices)


class Front:
    """The replica that speaks HTTP and hands texts on to the models' replicas."""

    def __init__(
        self, models: dict[str, DeploymentHandle], choices: dict[str, tuple[str, ...]]
    ) -> None:
        self._models = models
        self._choices = choices

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application in the replica: nothing of FastAPI has to be pickled."""
        return build_application(self._models, self._choices)


def build_application(
    models: dict[str, DeploymentHandle], choices: dict[str, tuple[str, ...]]
) -> FastAPI:
    """The routes.

    Args:
        models: By name, the deployments that have a `classify` method.
        choices: By name, what each model chooses from.
    """
    app = FastAPI(title="Stillhouse")
    app.exception_handler(RequestValidationError)(_explain)

    @app.post(
        "/v1/classify",
        response_model_exclude_none=True,
        responses={status: {"model": Problem} for status in (404, 422, 503)},
    )
    async def classify(request: ClassifyRequest) -> ClassifyResponse:
        """Choose one of the model's choices for each text."""
        if request.model not in models:
            known = ", ".join(models)
            raise HTTPException(404, f"There is no model '{request.model}'; there are: {known}.")
        texts = request.input if isinstance(request.input, list) else [request.input]
        try:
            answers: list[Answer] = await models[request.model].classify.remote(texts)
        except StillhouseError as error:  # the request is sound, the model's set-up is not
            raise HTTPException(503, str(error)) from error
        for number, answer in enumerate(answers):
            if answer.error:
                raise HTTPException(422, f"Text {number}: {answer.error}.")
        results = [_result(choices[request.model], answer) for answer in answers]
        return ClassifyResponse(model=request.model, results=results, usage=_usage(answers))

    @app.get("/v1/models")
    async def list_models() -> Models:
        """The models that can be asked."""
        return Models(data=[Model(id=name, choices=list(choices[name])) for name in models])

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    return app


def _result(choices: tuple[str, ...], answer: Answer) -> Result:
    best = max(range(len(choices)), key=answer.probabilities.__getitem__)
    return Result(
        label=choices[best],
        probabilities=dict(zip(choices, answer.probabilities, strict=True)),
    )


def _usage(answers: list[Answer]) -> TokenUsage | None:
    counted = [answer.usage for answer in answers if answer.usage is not None]
    if not counted:
        return None
    total = sum(counted, Usage())
    return TokenUsage(**{name: getattr(total, name) for name in TokenUsage.model_fields})


async def _explain(_: Request, error: Exception) -> JSONResponse:
    """Say what is wrong without repeating the input: it may be secret, or no valid Unicode."""
    assert isinstance(error, RequestValidationError)
    problems = [
        f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    ]
    detail = "; ".join(problems).encode("utf-8", "backslashreplace").decode()
    return JSONResponse(Problem(detail=detail).model_dump(), status_code=422)
