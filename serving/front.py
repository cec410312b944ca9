"""The HTTP face of served models: the routes, and the replica that they run in."""

# FastAPI reads the annotations of routes when they are made: no `from __future__` here.
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from ray.serve.handle import DeploymentHandle

from core.errors import StillhouseError
from core.recipe_serving import Serve
from serving.answers import Answer
from serving.bodies import (
    Body,
    ChooseResponse,
    ClassifyResponse,
    CompletionResponse,
    Health,
    ModelCard,
    ModelInfo,
    Models,
    Problem,
    Requests,
    chosen,
    classified,
    completed,
    questions_of,
    request_bodies,
)
from serving.gate import Gate, Refusal, record_of
from serving.models import Model, ServedModel
from serving.page import ROUTE, Page, render
from serving.replica import RemoteModel
from serving.shares import Share, SharedModel
from serving.text_teacher import LoadedTextTeacher

DEPLOYMENT = "front"
"""Name of the front among an application's deployments."""

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 413, 422, 429, 500, 503, 504)
}
"""What else a request may be answered with."""


@dataclass(frozen=True)
class Placed:
    """A model with what stands beside it, and where it runs."""

    model: ServedModel
    handle: DeploymentHandle | None = None
    """Of the deployment that it has of its own; None where the front loads it."""
    canary: DeploymentHandle | None = None
    canary_share: float = 0.0
    shadow: DeploymentHandle | None = None
    shadow_share: float = 0.0


class Front:
    """The replica that speaks HTTP. A model that it loads itself is one hop nearer to callers."""

    def __init__(
        self, placed: dict[str, Placed], settings: Serve, page: Page | None = None
    ) -> None:
        self._settings = settings
        self._page = page
        self._models = {name: self._open(name, one) for name, one in placed.items()}

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application in the replica: nothing of FastAPI has to be pickled."""
        return build_application(self._models, self._settings, self._page)

    def statistics(self, model: str) -> dict[str, float]:
        """What a model that was loaded here has done."""
        return self._models[model].statistics()

    def _open(self, name: str, placed: Placed) -> Model:
        if placed.handle is None:
            model = placed.model.load(self._settings)
        else:
            model = self._remote(placed, placed.handle)
        shares = {
            role: Share(self._remote(placed, handle), share)
            for role, handle, share in (
                ("canary", placed.canary, placed.canary_share),
                ("shadow", placed.shadow, placed.shadow_share),
            )
            if handle is not None
        }
        if not shares:
            return model
        return SharedModel(name, model, shares.get("canary"), shares.get("shadow"))

    def _remote(self, placed: Placed, handle: DeploymentHandle) -> Model:
        told = placed.model.description
        return RemoteModel(handle, told, self._settings.retry_after_seconds)


def build_application(
    models: Mapping[str, Model], settings: Serve, page: Page | None = None
) -> FastAPI:
    """The routes.

    Args:
        models: By the name that requests give.
        settings: The recipe's `serve` section.
        page: What is shown where a person tries it; there is no such page if None.
    """
    app = FastAPI(
        title="Stillhouse",
        description="Students and their teachers: choices with probabilities.",
        redoc_url=None,
    )
    app.add_middleware(Gate, settings=settings)
    app.exception_handler(RequestValidationError)(explain)
    app.exception_handler(Refusal)(refuse)
    bodies = request_bodies(settings.limits, list(models))
    _add_choosing(app, models, bodies, settings)
    _add_writing(app, models, bodies)
    _add_telling(app, models)
    if page is not None:
        shown = render(page)

        @app.get(ROUTE, include_in_schema=False)
        async def try_it() -> HTMLResponse:
            return HTMLResponse(shown)

    return app


def _add_choosing(
    app: FastAPI, models: Mapping[str, Model], bodies: Requests, settings: Serve
) -> None:
    """The routes of models that choose."""

    async def ask(http: Request, body: Any) -> list[Answer]:
        model = _find(models, body.model)
        questions = questions_of(body)
        record = record_of(http.scope)
        record.model, record.inputs = body.model, len(questions)
        if settings.log_texts:
            record.more["texts"] = [question.text for question in questions]
        try:
            answers: list[Answer] = await model.answer(questions)
        except StillhouseError as error:  # the request is sound, the model's set-up is not
            raise HTTPException(503, str(error)) from error
        for number, answer in enumerate(answers):
            if answer.error:
                raise HTTPException(422, f"Text {number}: {answer.error}.")
        record.answered_by = Counter(answer.answered_by for answer in answers)
        return answers

    @app.post("/v1/classify", response_model=ClassifyResponse, responses=PROBLEMS)
    async def classify(http: Request, body: bodies.classify) -> Response:  # type: ignore[name-defined]
        """Choose one of the model's choices for each text."""
        answers = await ask(http, body)
        return _json(classified(body.model, answers))

    @app.post("/v1/multiple-choice", response_model=ChooseResponse, responses=PROBLEMS)
    async def multiple_choice(http: Request, body: bodies.choose) -> Response:  # type: ignore[name-defined]
        """Choose one of each question's own choices."""
        answers = await ask(http, body)
        return _json(chosen(body.model, answers))


def _add_writing(app: FastAPI, models: Mapping[str, Model], bodies: Requests) -> None:
    """The route of teachers that write, where there are any."""
    writers = {
        name: model for name, model in models.items() if isinstance(model, LoadedTextTeacher)
    }
    if not writers:
        return

    @app.post("/v1/completions", response_model=CompletionResponse, responses=PROBLEMS)
    async def complete(http: Request, body: bodies.complete) -> Response:  # type: ignore[name-defined]
        """Write on from a prompt, as the teacher was asked to."""
        writer = _find(writers, body.model)
        record = record_of(http.scope)
        record.model, record.inputs = body.model, 1
        texts = await writer.complete(body.prompt)
        failed = next((one for one in texts if one.finish == "error"), None)
        if failed is not None:
            raise HTTPException(422, f"{failed.error}.")
        record.answered_by[""] += 1
        return _json(completed(body.model, texts))


def _add_telling(app: FastAPI, models: Mapping[str, Model]) -> None:
    """The routes that tell of the models, and the probes."""

    @app.get("/v1/models", responses=PROBLEMS)
    async def list_models() -> Models:
        """The models that can be asked."""
        told = [ModelInfo.of(name, model.description) for name, model in models.items()]
        return Models(data=told)

    @app.get("/v1/models/{name}", responses=PROBLEMS)
    async def show_model(name: str) -> ModelCard:
        """One model, with its card."""
        return ModelCard.of(name, _find(models, name).description)

    @app.get("/healthz")
    async def healthz() -> Health:
        """Whether this process answers."""
        return Health(status="ok")

    @app.get("/readyz")
    async def readyz() -> Health:
        """Whether requests would be answered: a replica takes none before its models are loaded.

        A model that has scaled to zero counts as ready, and is not started by this.
        """
        return Health(status="ok")


def _find(models: Mapping[str, Any], name: str) -> Any:
    """The model of a name.

    Raises:
        HTTPException: There is none.
    """
    if name not in models:
        known = ", ".join(models)
        raise HTTPException(404, f"There is no model '{name}'; there are: {known}.")
    return models[name]


async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer a request that is refused before a model works on it."""
    assert isinstance(error, Refusal)
    return JSONResponse({"detail": error.detail}, error.status, error.headers)


def _json(body: Body) -> Response:
    """An answer that pydantic has written itself: FastAPI would check it a second time."""
    return Response(body.model_dump_json(exclude_none=True), media_type="application/json")


async def explain(_: Request, error: Exception) -> JSONResponse:
    """Say what is wrong without repeating the input: it may be secret, or no valid Unicode."""
    assert isinstance(error, RequestValidationError)
    problems = [
        f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    ]
    detail = "; ".join(problems).encode("utf-8", "backslashreplace").decode()
    return JSONResponse(Problem(detail=detail).model_dump(), status_code=422)
