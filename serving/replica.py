"""A model in a deployment of its own, and how the front asks it."""

from __future__ import annotations

from collections.abc import Sequence

import ray
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from core.recipe_serving import Serve
from serving.answers import Answer, Question
from serving.gate import Refusal
from serving.models import Description, ServedModel


class ModelReplica:
    """The replica of a model that is not in the front."""

    def __init__(self, model: ServedModel, settings: Serve) -> None:
        self._model = model.load(settings)

    async def answer(self, questions: list[Question]) -> list[Answer]:
        """Answer questions, in their order."""
        return await self._model.answer(questions)

    def statistics(self) -> dict[str, float]:
        """What the model has done since it was loaded."""
        return self._model.statistics()


class RemoteModel:
    """A model of another deployment, as the front sees it."""

    def __init__(
        self, handle: DeploymentHandle, description: Description, retry_after_seconds: float
    ) -> None:
        self.description = description
        self._handle = handle
        self._retry_after_seconds = retry_after_seconds

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Ask a replica.

        Raises:
            Refusal: Too many wait already, or the replica stopped while it was at work.
        """
        try:
            answers: list[Answer] = await self._handle.answer.remote(list(questions))
        except BackPressureError:
            raise too_many(self._retry_after_seconds) from None
        except ray.exceptions.RayActorError:
            raise Refusal(503, "The model's replica stopped. Ask again.") from None
        return answers

    def statistics(self) -> dict[str, float]:
        """Nothing: its replicas count."""
        return {}


def too_many(retry_after_seconds: float) -> Refusal:
    """The answer where too many requests wait already, as Serve's own proxy gives it."""
    headers = {"retry-after": f"{max(1, round(retry_after_seconds))}"}
    return Refusal(429, "Too many requests wait already. Ask again later.", headers)
