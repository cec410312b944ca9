"""What the import path of the application takes: on Kubernetes the `args` of a RayService."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from core.errors import UseError
from core.recipe_section import Name, Section
from core.recipe_serving import Serve


class SharedStudent(Section):
    """A student that gets a share of another one's requests."""

    folder: str
    """Path or URL of its Hugging Face folder."""
    share: float = Field(gt=0, le=1)
    """Of the requests, drawn at random."""


class Student(Section):
    """A student: one that chooses, or one that writes."""

    folder: str
    """Path or URL of its Hugging Face folder, seen by every replica."""
    card: str = ""
    """Its model card; the folder's README.md if empty."""
    canary: SharedStudent | None = None
    """Answers its share of the requests in the student's place."""
    shadow: SharedStudent | None = None
    """Hears its share of the requests too, and is compared; callers never see it."""
    engine: dict[str, Any] = {}
    """Of a causal one: engine arguments beside those of `serve.engine`, handed to vLLM."""
    adapters: dict[Name, str] = {}
    """Of a causal one: LoRA adapters by name, each a path or URL; asked as `STUDENT:ADAPTER`."""


class Arguments(Section):
    """All that an application is made from."""

    students: dict[Name, Student] = Field(min_length=1)
    """By the name that requests give."""
    serve: Serve = Serve()
    """The recipe's section. On Kubernetes host, port and tracing are those of the RayService."""


def read_arguments(args: dict[str, Any]) -> Arguments:
    """Check the arguments.

    Raises:
        UseError: With the key that is wrong.
    """
    try:
        return Arguments.model_validate(args)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise UseError(
            f"args.{key}", f"{first['msg']}.", "docs/architecture.md lists the arguments."
        ) from None
