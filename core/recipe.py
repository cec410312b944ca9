"""What a recipe may say in every method.

Each method adds its own sections in a subclass of `Recipe` (see `stillhouse/methods/`). Those of
teachers, students, curation and serving stand beside this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from core.recipe_ablation import Ablation
from core.recipe_cluster import Cluster
from core.recipe_section import Name, Section
from core.recipe_serving import Compare, Serve
from core.recipe_students import Student
from core.recipe_sweep import Sweep
from core.recipe_teachers import AnyTeacher, RecordedTeacher


class RowFile(Section):
    """Labelled rows with choices of their own, which somebody else has published."""

    file: str
    """The file, beside the recipe; of a set of many files an archive of one part of it."""
    format: str | None = None
    """The data set whose authors publish such files; lines of JSON if absent."""
    limit: int | None = Field(default=None, ge=1)
    """Rows at most, drawn by their content."""


class Task(Section):
    """What the student must learn, in the words that the teacher reads."""

    instruction: str = Field(min_length=1)
    """One or two sentences that tell a person, or a model, what to do with an input; `{subject}`
    in it is the row's subject, where rows have some."""
    question_name: str = "Question"
    """What an input is called in prompts, such as `Headline`."""
    answer_name: str = "Answer"
    """What an answer is called in prompts, such as `News desk`."""
    choices: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=2)
    """The answers to choose from, where they are the same for every row; if absent, every row has
    choices of its own."""
    examples: str
    """JSONL file of the few labelled rows that the method starts from, beside the recipe:
    {"question": ..., "answer": ...}, with "choices" where every row has its own."""
    evaluation: str
    """JSONL file of labelled rows that nothing is learnt from: before the evaluation they are only
    read to drop items that copy from them."""
    format: str | None = None
    """The data set in whose form both files are published, such as `mmlu`; JSONL if absent."""
    shots: int | None = Field(default=None, ge=1)
    """Examples that are used, the first of the file, or of each subject in it; all if absent."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluation rows at most, drawn by their content; all if absent."""

    @property
    def words(self) -> dict[str, Any]:
        """What of it stands in prompts, and so decides what teachers are asked."""
        return self.model_dump(include={"instruction", "question_name", "answer_name", "choices"})

    @model_validator(mode="after")
    def _published_rows_have_choices(self) -> Self:
        if self.format is not None and self.choices is not None:
            raise ValueError("format is of rows with choices of their own: leave choices out")
        return self

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        folded = [choice.strip().casefold() for choice in self.choices or ()]
        if len(set(folded)) < len(folded):
            raise ValueError("two choices are the same but for case or blanks")
        return self


class Budget(Section):
    """Where a run stops, cleanly and before it is exceeded; raised later, it goes on from there."""

    money: float | None = Field(default=None, gt=0)
    """In the price book's currency; every price must be known."""
    device_hours: float | None = Field(default=None, gt=0)
    """Of all devices together, start-up and idle time included."""
    tokens: int | None = Field(default=None, ge=1)
    """Through teachers, in and out."""


class Recipe(Section):
    """The sections that every method has."""

    name: Name
    """Names the run."""
    method: str
    """Which method: a module of `stillhouse/methods/`."""
    seed: int = Field(default=0, ge=0)
    """Seed of sampling, shuffling and training."""
    shard_rows: int = Field(default=64, ge=1)
    """Rows that are committed together: what a kill can cost."""
    teachers: dict[Name, AnyTeacher] = Field(min_length=1)
    """By name: the models that generate and score."""
    max_rejected: float | None = Field(default=None, gt=0, lt=1)
    """Share of a stage's rows that may be rejected; the run stops when there are more. No limit if
    absent."""
    budget: Budget = Budget()
    """What the run may cost."""
    prices: str | None = None
    """YAML price book beside the recipe; the one that comes with Stillhouse if absent."""
    cluster: Cluster | None = None
    """The Kubernetes cluster that `stillhouse cluster` takes the recipe to."""

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        found = {} if self.prices is None else {"prices": self.prices}
        for name, teacher in self.teachers.items():
            if isinstance(teacher, RecordedTeacher):
                keys = (f"teachers.{name}.files.{n}" for n in range(len(teacher.files)))
                found.update(zip(keys, teacher.files, strict=True))
        return found

    def with_prompts(self, folder: Path, place: Callable[[str], str]) -> Self:  # noqa: ARG002
        """The same recipe with the texts of its prompts in the place of templates' names.

        A run keeps the recipe so: what it was asked does not change when a template does.

        Args:
            folder: The recipe's, in which template files are.
            place: Tells the line of a dotted key.

        Raises:
            UseError: A template is not there, or is none.
        """
        return self


class TrainingRecipe(Recipe):
    """The sections of every method that trains students."""

    students: dict[Name, Student] = Field(min_length=1)
    """By name: the models that are trained."""
    sweep: Sweep | None = None
    """Which values of this recipe `stillhouse sweep` tries; none if absent."""
    ablate: Ablation | None = None
    """Which variants of this recipe `stillhouse ablate` compares; none if absent."""
    serve: Serve = Serve()
    """The endpoint."""
    compare: Compare | None = None
    """The cost comparison; none if absent."""

    @property
    def choices(self) -> list[str]:
        """The answers of every row; empty where rows have choices of their own, or none."""
        return []

    @model_validator(mode="after")
    def _judged_students_are_there(self) -> Self:
        for name, section in (("sweep", self.sweep), ("ablate", self.ablate)):
            if section is not None and section.student not in (None, *self.students):
                known = ", ".join(self.students)
                raise ValueError(
                    f"{name}.student is '{section.student}', but students has: {known}"
                )
        return self


class StudentRecipe(TrainingRecipe):
    """The sections of every method whose students are served and choose."""

    task: Task
    """What the student must learn."""
    compare: Compare = Compare()
    """The cost comparison."""

    @property
    def choices(self) -> list[str]:
        """The answers of every row; empty where rows have choices of their own."""
        return self.task.choices or []

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        task = {"task.examples": self.task.examples, "task.evaluation": self.task.evaluation}
        return {**task, **super().files()}


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe together with the folder that its relative paths start from."""

    recipe: Recipe
    folder: Path

    @property
    def training_recipe(self) -> TrainingRecipe:
        """The recipe, in a method that trains students."""
        assert isinstance(self.recipe, TrainingRecipe)
        return self.recipe

    @property
    def student_recipe(self) -> StudentRecipe:
        """The recipe, in a method whose students are served and choose."""
        assert isinstance(self.recipe, StudentRecipe)
        return self.recipe

    def path(self, name: str) -> Path:
        """An input file that the recipe names, as a path on this machine.

        Raises:
            StillhouseError: It is on an object store, and cannot be fetched from there.
        """
        if "://" in name:
            from core.fetched import fetched_file

            return fetched_file(name)
        return self.folder / name
