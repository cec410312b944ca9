"""What a comparison must know of teacher and student: how each is asked, and what it answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.recipe_section import Device
from core.stage import StageContext
from serving.encoder import encoder_student
from serving.load import Reply, Request
from serving.models import ServedModel

Row = dict[str, Any]


class Compared(Protocol):
    """One of the two. Both answer the same rows, each asked in its own way."""

    @property
    def name(self) -> str:
        """Its name in the recipe."""
        ...

    @property
    def model(self) -> str:
        """As the recipe names it."""
        ...

    @property
    def served(self) -> ServedModel:
        """What is deployed."""
        ...

    @property
    def device(self) -> Device | None:
        """Of one replica or engine; None where tokens are paid."""
        ...

    @property
    def replicas(self) -> int:
        """How many there are."""
        ...

    def request(self, row: Row) -> Request:
        """How it is asked about a row."""
        ...

    def prediction(self, row: Row, reply: Reply) -> Row:
        """What it answered, as a row of `core.rows.PREDICTION`."""
        ...


@dataclass(frozen=True)
class Chooser:
    """A model that chooses, behind `/v1/classify` or `/v1/multiple-choice`."""

    name: str
    model: str
    served: ServedModel
    device: Device | None
    replicas: int
    key: str
    """Its name at the endpoint."""

    def request(self, row: Row) -> Request:
        """A text, or a question with its choices where the model needs them."""
        if self.served.description.choices is not None:
            return Request("/v1/classify", {"model": self.key, "input": row["question"]})
        question = {"question": row["question"], "choices": row["choices"]}
        return Request("/v1/multiple-choice", {"model": self.key, "input": question})

    def prediction(self, row: Row, reply: Reply) -> Row:
        """Row of `core.rows.PREDICTION`."""
        assert reply.answer is not None, "it was answered"
        result = reply.answer["results"][0]
        probabilities = _in_order(result["probabilities"], row["choices"])
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return {
            "id": row["id"],
            "model": self.name,
            "question": row["question"],
            "choices": row["choices"],
            "answer": row["answer"],
            # A row's own choices may have one twice: it is one answer, and the first is its number.
            "predicted": row["choices"].index(row["choices"][best]),
            "probabilities": probabilities,
            "difficulty": row["difficulty"],
        }


def student_chooser(context: StageContext) -> Chooser:
    """The student of a stage, as it is compared.

    Settings: `student`, its name in the recipe.
    Inputs: `student`, whose folder holds the model in `student/`.

    Raises:
        UseError: There is no encoder student, or its choices are not the task's.
    """
    name, recipe = context.settings["student"], context.recipe.training_recipe
    folder = context.inputs["student"].folder.child("student").location
    return Chooser(
        name,
        name,
        encoder_student(folder, recipe.choices or None),
        recipe.serve.device,
        max(1, recipe.serve.scale.min),
        "student",
    )


def _in_order(
    probabilities: Mapping[str, float] | Sequence[float], choices: Sequence[str]
) -> list[float]:
    """Probabilities in the order of a row's choices, whichever form they were told in."""
    if isinstance(probabilities, Mapping):
        return [probabilities[choice] for choice in choices]
    return list(probabilities)
