"""The OpenAI routes of an application of students, on those of `ray.serve.llm`.

What is taken of Ray that is not public stands in this module alone.
"""

# FastAPI reads the annotations of routes when they are made: no `from __future__` here.
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Self

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ModelWrapValidatorHandler, model_validator
from ray import serve
from ray.llm._internal.serve.core.ingress.middleware import (
    SetRequestIdMiddleware,
    add_exception_handling_middleware,
)
from ray.serve.exceptions import BackPressureError
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from vllm.exceptions import VLLMClientError

from core.recipe_serving import Serve
from core.student_reading import text_of
from serving.front import explain, refuse
from serving.gate import Gate, Refusal, record_of
from serving.replica import too_many
from serving.writers import WritingStudent

ROUTES = {
    "models": lambda app: app.get("/v1/models"),
    "model_data": lambda app: app.get("/v1/models/{model:path}"),
    "completions": lambda app: app.post("/v1/completions"),
    "chat": lambda app: app.post("/v1/chat/completions"),
    "healthz": lambda app: app.get("/healthz"),
    "readyz": lambda app: app.get("/readyz"),
}
"""By the method that answers. Embeddings, audio and scores are nothing that a student gives."""


class Checked(BaseModel):
    """A request of vLLM's form, whose checks take the types of what they look at for granted."""

    @model_validator(mode="wrap")
    @classmethod
    def _stumbling_refuses(cls, data: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Have a check that stumbles over a value, such as `messages: null`, refuse the request."""
        try:
            return check(data)
        except (AttributeError, LookupError, TypeError, VLLMClientError) as error:
            raise ValueError(f"this is no request: {error}") from error


class ChatRequest(Checked, ChatCompletionRequest):  # type: ignore[misc]  # Ray has no types
    """A conversation to answer."""


class TextRequest(Checked, CompletionRequest):  # type: ignore[misc]  # Ray has no types
    """A text to write on from."""


class StudentIngress(OpenAiIngress):  # type: ignore[misc]  # Ray has no types
    """Hands requests on to the students, each in a deployment of its own."""

    def __init__(
        self,
        llm_deployments: dict[str, Any],
        told: dict[str, dict[str, Any]],
        settings: Serve,
    ) -> None:
        """Know the students.

        Args:
            llm_deployments: Their handles, by name.
            told: What is told of each, by name; of an adapter by `STUDENT:ADAPTER`.
            settings: The recipe's `serve` section.
        """
        super().__init__(llm_deployments, dict.fromkeys(llm_deployments))
        self._told = told
        self._settings = settings

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """Answer a conversation, as a student answers behind the prompt that it was trained on."""
        if not body.messages:  # vLLM's own form of a request allows it
            raise HTTPException(400, "messages is missing, or empty.")
        for message in body.messages:
            if not isinstance(message, dict):  # vLLM knows forms of a model's own, too
                raise HTTPException(400, "messages are objects with role and content.")
            if not isinstance(message.get("content"), str | None):
                message["content"] = list(message["content"])  # pydantic's can be read once
        said = "\n".join(text_of(message.get("content")) for message in body.messages)
        self._admit(request, body.model, [said], body.n or 1)
        answer: Response = await super().chat(body, request)
        return answer

    async def completions(self, body: TextRequest, request: Request) -> Response:
        """Write on from a text as it stands."""
        several = isinstance(body.prompt, list) and not isinstance((body.prompt or [0])[0], int)
        prompts = body.prompt if several else [body.prompt]
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]  # and no tokens
        self._admit(request, body.model, texts, len(prompts) * (body.n or 1))
        answer: Response = await super().completions(body, request)
        return answer

    async def models(self) -> dict[str, Any]:
        """The students, and their adapters."""
        data = [
            {name: value for name, value in told.items() if name != "card"}
            for told in self._told.values()
        ]
        return {"object": "list", "data": data}

    async def model_data(self, model: str) -> dict[str, Any]:
        """One student, with its card."""
        if model not in self._told:
            raise HTTPException(404, f"There is no model '{model}'.")
        return self._told[model]

    async def healthz(self) -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    async def readyz(self) -> dict[str, str]:
        """The same: no student is started by a probe."""
        return {"status": "ok"}

    async def _get_model_id(self, model: str | None) -> str:
        found: str = await super()._get_model_id(model)
        if found not in self._told:  # an adapter that is not there
            raise HTTPException(404, f"There is no model '{found}'.")
        return found

    async def _get_response(self, **asked: Any) -> AsyncGenerator[Any, None]:
        try:
            async for part in super()._get_response(**asked):
                yield part
        except BackPressureError:
            raise too_many(self._settings.retry_after_seconds) from None

    def _admit(self, request: Request, model: str | None, texts: list[str], answers: int) -> None:
        """Note what is asked, and refuse more than a request may ask for.

        Raises:
            HTTPException: There are too many answers to write, or a text is too long.
        """
        record, limits = record_of(request.scope), self._settings.limits
        # Only names that there are: callers must not be able to make metrics without end.
        record.model = model if model in self._told else ""
        record.inputs = answers
        if answers > limits.inputs:
            raise HTTPException(422, f"A request may ask for {limits.inputs} answers at most.")
        if any(len(text) > limits.characters for text in texts):
            raise HTTPException(422, f"A text may have {limits.characters} characters at most.")
        if self._settings.log_texts:
            record.more["texts"] = texts
        record.answered_by[""] += answers


def bind_ingress(
    served: Mapping[str, serve.Application],
    students: Mapping[str, WritingStudent],
    settings: Serve,
    options: Mapping[str, Any],
) -> serve.Application:
    """Lay out the deployment that speaks HTTP.

    Args:
        served: The students' deployments, by name.
        students: By name.
        settings: The recipe's `serve` section.
        options: Of the deployment.
    """
    told = {
        asked: _told(asked, student)
        for name, student in students.items()
        for asked in (name, *(f"{name}:{adapter}" for adapter in student.adapters))
    }
    ingress = make_fastapi_ingress(StudentIngress, endpoint_map=ROUTES, app=_application(settings))
    return serve.deployment(ingress, **options).bind(
        llm_deployments=dict(served),
        told=told,
        settings=settings,
    )


def _application(settings: Serve) -> FastAPI:
    app = FastAPI(
        title="Stillhouse",
        description="Students that write, behind the OpenAI API.",
        redoc_url=None,
    )
    add_exception_handling_middleware(app)
    app.add_middleware(SetRequestIdMiddleware)
    app.add_middleware(Gate, settings=settings)
    app.add_exception_handler(Refusal, refuse)
    app.add_exception_handler(RequestValidationError, explain)
    return app


def _told(name: str, student: WritingStudent) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "owned_by": "stillhouse",
        "role": "student",
        "family": student.reading.family,
        "max_tokens": student.reading.max_length,
        "max_answer_tokens": student.reading.max_answer_length,
        "card": student.card,
    }
