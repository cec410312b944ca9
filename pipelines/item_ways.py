"""Ways to have a teacher write an item from a few examples (2412.09807).

Whatever a teacher answers is text, and any text becomes an item or the reason why it is none.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from core.teacher import Engine, Sampling, Usage
from pipelines.choice_sets import choice_fault
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.permutations import LETTERS
from pipelines.row_work import Rejection, Row


@dataclass(frozen=True)
class Item:
    """A question with its choices, as it was read from what a teacher wrote."""

    question: str
    choices: list[str]
    answer: int
    """Index of the choice that is meant to be the right one."""


class NotWritten(Exception):  # noqa: N818, an item's fate, and no fault of the program
    """What a teacher wrote is no item."""

    def __init__(self, reason: str, detail: str, original: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason, detail, original)


class Scribe:
    """Asks a teacher for the texts of one item, and adds up what they took."""

    def __init__(self, engine: Engine, sampling: Sampling) -> None:
        self.usage = Usage()
        self._engine = engine
        self._sampling = sampling

    async def text(self, prompt: str) -> str:
        """All that the teacher writes after a prompt.

        Raises:
            NotWritten: It could not.
        """
        return (await self._complete(prompt))[0]

    async def line(self, prompt: str) -> str:
        """The first line of it.

        Raises:
            NotWritten: There is none, or it was cut.
        """
        return first_line(*await self._complete(prompt))

    async def _complete(self, prompt: str) -> tuple[str, str]:
        completion = await self._engine.complete(prompt, self._sampling)
        self.usage += completion.usage
        if completion.finish == "error":
            raise NotWritten(completion.reason, completion.error, prompt)
        return completion.text, completion.finish


class Way(Protocol):
    """How a teacher is asked for one item of a planned row; travels to the workers."""

    @property
    def templates(self) -> tuple[str, ...]:
        """The prompt files that it fills in."""
        ...

    async def item(self, prompts: FewshotPrompts, scribe: Scribe, row: Row) -> Item:
        """Have an item written.

        Raises:
            NotWritten: What was written is none.
        """
        ...


@dataclass(frozen=True)
class QuestionForAnswer:
    """Fixed choices, step by step: a question for a given one."""

    templates: ClassVar[tuple[str, ...]] = ("write_question.j2",)

    async def item(self, prompts: FewshotPrompts, scribe: Scribe, row: Row) -> Item:
        """One call."""
        assert prompts.task.choices is not None
        question = await scribe.line(prompts.write_question(row["answer"], row["order"]))
        return Item(question, prompts.task.choices, row["answer"])


@dataclass(frozen=True)
class FixedJson:
    """Fixed choices, whole items as JSON."""

    templates: ClassVar[tuple[str, ...]] = ("write_json.j2",)

    async def item(self, prompts: FewshotPrompts, scribe: Scribe, row: Row) -> Item:
        """One call."""
        assert prompts.task.choices is not None
        text = await scribe.text(prompts.write_json(row["order"]))
        answer, question = read_json_item(text, prompts.task.choices)
        return Item(question, prompts.task.choices, answer)


@dataclass(frozen=True)
class Decomposed:
    """Choices of their own, step by step: a question, its right answer, and wrong ones."""

    negatives: int

    templates: ClassVar[tuple[str, ...]] = (
        "write_own_question.j2",
        "write_right_answer.j2",
        "write_wrong_answer.j2",
    )

    async def item(self, prompts: FewshotPrompts, scribe: Scribe, row: Row) -> Item:
        """Two calls one after the other, and one more for each wrong answer, side by side.

        Wrong answers that repeat another choice are left out, so an item may have fewer of them.
        """
        order = row["order"]
        question = await scribe.line(prompts.write_own_question(order))
        right = await scribe.line(prompts.write_right_answer(question, order))
        wrong = await asyncio.gather(
            *(
                scribe.line(prompts.write_wrong_answer(question, right, order, number))
                for number in range(self.negatives)
            )
        )
        choices = [right]
        for one in wrong:
            if choice_fault([*choices, one], 0) is None:
                choices.append(one)
        if len(choices) == 1:
            raise NotWritten("too-few-choices", "all wrong answers repeat the right one", question)
        # The right answer's place says nothing, and is the same in every attempt at the row.
        random.Random(row["id"]).shuffle(choices)  # noqa: S311, no secret
        return Item(question, choices, choices.index(right))


@dataclass(frozen=True)
class OwnJson:
    """Choices of their own, whole items as JSON."""

    negatives: int

    templates: ClassVar[tuple[str, ...]] = ("write_own_json.j2",)

    async def item(self, prompts: FewshotPrompts, scribe: Scribe, row: Row) -> Item:
        """One call."""
        return read_own_item(
            await scribe.text(prompts.write_own_json(row["order"], self.negatives))
        )


def first_line(text: str, finish: str) -> str:
    """The first line that a teacher wrote.

    Raises:
        NotWritten: There is none, or it was cut.
    """
    line = text.strip().split("\n")[0].strip()
    if not line:
        raise NotWritten("empty", "the teacher wrote nothing", text)
    if finish == "length":
        raise NotWritten("cut", "the teacher did not come to an end", text)
    return line


def read_json_item(text: str, choices: list[str]) -> tuple[int, str]:
    """Take a JSON item of fixed choices apart: its answer and its question.

    Raises:
        NotWritten: It is none.
    """
    item = _json_object(text)
    if item.get("answer") not in choices:
        detail = f"{item.get('answer')!r} is not one of the choices"
        raise NotWritten("unparseable", detail, text)
    return choices.index(item["answer"]), item["question"].strip()


def read_own_item(text: str) -> Item:
    """Take a JSON item apart that brings its choices; the answer is one of them, or its letter.

    Raises:
        NotWritten: It is none.
    """
    item = _json_object(text)
    listed, answer = item.get("choices"), item.get("answer")
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise NotWritten("unparseable", "there is no list of texts under 'choices'", text)
    choices = [one.strip() for one in listed]
    if not isinstance(answer, str):
        raise NotWritten("unparseable", "there is no text under 'answer'", text)
    letters = list(LETTERS[: len(choices)])
    if answer.strip() in choices:
        right = choices.index(answer.strip())
    elif answer.strip() in letters:
        right = letters.index(answer.strip())
    else:
        raise NotWritten("unparseable", f"{answer!r} is not one of the choices", text)
    fault = choice_fault(choices, right)
    if fault is not None:
        raise NotWritten(*fault, text)
    return Item(item["question"].strip(), choices, right)


def _json_object(text: str) -> dict[str, Any]:
    """The object that a teacher wrote, with a text under `question`.

    Structured decoding gives one unless it is cut short; without it anything can come.
    """
    try:
        # Not strict: structured decoding lets bare control characters into strings.
        item: Any = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise NotWritten("unparseable", f"not JSON: {error}", text) from None
    if not isinstance(item, dict) or not isinstance(item.get("question"), str):
        raise NotWritten("unparseable", "there is no text under 'question'", text)
    if not item["question"].strip():
        raise NotWritten("empty", "the question is empty", text)
    return item


def way_of(mode: str, negatives: int | None) -> Way:
    """How items are written.

    Args:
        mode: `decomposed` or `json`.
        negatives: Wrong answers of an item; None where the choices are fixed.
    """
    if negatives is None:
        return FixedJson() if mode == "json" else QuestionForAnswer()
    return OwnJson(negatives) if mode == "json" else Decomposed(negatives)
