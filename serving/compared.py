"""What a comparison must know of teacher and student: how each is asked, and what it answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.recipe_section import Device
from core.recipe_serving import Serve
from core.stage import StageContext
from serving.application import Endpoint, deploy
from serving.encoder import encoder_student
from serving.load import Reply, Request
from serving.models import ServedModel
from serving.text_teacher import TextTeacher
from serving.writers import WritingStudent, deploy_writers

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
    def device(self) -> Device | None:
        """Of one replica or engine; None where tokens are paid."""
        ...

    @property
    def replicas(self) -> int:
        """How many there are."""
        ...

    def request(self, row: Row, load: int) -> Request:
        """How it is asked about a row.

        Args:
            row: Of the task.
            load: Number of the load; what an engine keeps of one is nothing to another.
        """
        ...

    def deploy(self, settings: Serve, name: str, logs: Path) -> Endpoint:
        """Serve it in an application of its own.

        Args:
            settings: The recipe's `serve` section.
            name: Of the application.
            logs: Folder for Serve's logs.
        """
        ...

    def right(self, row: Row, reply: Reply) -> bool:
        """Whether what it answered is right."""
        ...

    def prediction(self, row: Row, reply: Reply) -> Row | None:
        """What it answered, as a row of `core.rows.PREDICTION`; None where it did not choose."""
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

    def request(self, row: Row, load: int) -> Request:  # noqa: ARG002, it keeps nothing
        """A text, or a question with its choices where the model needs them."""
        if self.served.description.choices is not None:
            return Request("/v1/classify", {"model": self.key, "input": row["question"]})
        question = {"question": row["question"], "choices": row["choices"]}
        return Request("/v1/multiple-choice", {"model": self.key, "input": question})

    def deploy(self, settings: Serve, name: str, logs: Path) -> Endpoint:
        """Serve it in an application of its own."""
        return deploy({self.key: self.served}, settings, name=name, logs=logs)

    def right(self, row: Row, reply: Reply) -> bool:
        """Whether the most probable choice is the right one."""
        return bool(self.prediction(row, reply)["predicted"] == row["answer"])

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


@dataclass(frozen=True)
class Writer:
    """A model that writes, behind the OpenAI API: a teacher's engine, or a student."""

    name: str
    model: str
    served: TextTeacher | WritingStudent
    device: Device | None
    replicas: int
    key: str
    """Its name at the endpoint."""
    ask: Callable[[Row], Request]
    """How it is asked about a row, without its name."""
    judge: Callable[[Row, list[str]], bool]
    """Whether what it wrote is right: all of its texts to one row."""

    def request(self, row: Row, load: int) -> Request:
        """How it is asked about a row."""
        asked = self.ask(row)
        body = {"model": self.key, **asked.body}
        if isinstance(self.served, WritingStudent):
            body["cache_salt"] = f"load {load}"
        return Request(asked.route, body)

    def deploy(self, settings: Serve, name: str, logs: Path) -> Endpoint:
        """Serve it in an application of its own."""
        if isinstance(self.served, TextTeacher):
            return deploy({self.key: self.served}, settings, name=name, logs=logs)
        return deploy_writers({self.key: self.served}, settings, name=name, logs=logs)

    def right(self, row: Row, reply: Reply) -> bool:
        """Whether the answer that is found in its texts is the right one."""
        assert reply.answer is not None, "it was answered"
        texts = [
            choice["message"]["content"] if "message" in choice else choice["text"]
            for choice in reply.answer["choices"]
        ]
        return self.judge(row, texts)

    def prediction(self, row: Row, reply: Reply) -> None:
        """It writes, and does not choose."""


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
