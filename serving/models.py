"""What can be served: the same form for students, teachers and cascades of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.recipe_serving import Serve
from serving.answers import Answer, Question


@dataclass(frozen=True)
class Description:
    """What `GET /v1/models/{name}` tells of a model."""

    role: str
    """`student`, `teacher` or `cascade`."""
    family: str
    """Such as `encoder`."""
    choices: tuple[str, ...] | None
    """What it chooses from; None where every question brings its own."""
    max_tokens: int | None = None
    """Tokens of an input that it reads; longer ones are cut. None where it refuses them."""
    runs_on: str = ""
    """Device and backend."""
    revision: str = ""
    """A hash of its files."""
    card: str = ""
    """The model card, Markdown."""


class Model(Protocol):
    """A model in a replica."""

    description: Description
    """What is told of it."""

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer questions, in their order."""
        ...

    def statistics(self) -> dict[str, float]:
        """What it has done since it was loaded, by name."""
        ...


class ServedModel(Protocol):
    """A model that is not loaded yet; it travels to the replica."""

    @property
    def description(self) -> Description:
        """What is told of it."""
        ...

    @property
    def holds_device(self) -> bool:
        """Whether its replica needs the device of the section `serve`; an engine has its own."""
        ...

    def load(self, settings: Serve) -> Model:
        """Load it, in the replica."""
        ...
