"""The prompts of few-shot multiple choice (2412.09807), built from the task and its examples.

The examples come first and in few orders, so that prompts share long prefixes and the engine's
prefix cache answers most of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.recipe import Task
from pipelines.permutations import LETTERS, permutation
from pipelines.prompt_files import render

FOLDER = "fewshot_mcqa"


@dataclass(frozen=True)
class FewshotPrompts:
    """Prompts of one task."""

    task: Task
    examples: list[dict[str, Any]]
    """Task rows."""
    subject: str = ""
    """Of the examples, where there are several."""

    def about(self, subject: str | None) -> FewshotPrompts:
        """The prompts of a subject, with its examples alone; of rows without one, the first's.

        A subject that no example has is asked about without examples.
        """
        if subject is None:
            subject = self.examples[0]["subject"] if self.examples else None
        if subject is None:
            return self
        examples = [row for row in self.examples if row["subject"] == subject]
        return replace(self, examples=examples, subject=subject)

    def write_question(self, answer: int, order: int) -> str:
        """Ask for a question whose right answer is `task.choices[answer]`."""
        assert self.task.choices is not None, "a row with choices of its own has no answer yet"
        return self._render("write_question.j2", order, answer=self.task.choices[answer])

    def write_json(self, order: int) -> str:
        """Ask for a whole item as one line of JSON."""
        return self._render("write_json.j2", order)

    def write_own_json(self, order: int, negatives: int) -> str:
        """Ask for a whole item with choices of its own as one line of JSON.

        Args:
            order: Of the examples.
            negatives: Wrong answers beside the right one; examples are shown with as many, or with
                all that they have.
        """
        items = []
        for row in rotate(self.examples, order):
            wrong = _wrong(row)[:negatives]
            choices = [c for c in row["choices"] if c == _right(row) or c in wrong]
            items.append({"question": row["question"], "choices": choices, "answer": _right(row)})
        return self._fill("write_own_json.j2", items)

    def write_own_question(self, order: int) -> str:
        """Ask for a question alone: the first of three steps."""
        return self._render("write_own_question.j2", order)

    def write_right_answer(self, question: str, order: int) -> str:
        """Ask for the right answer to a question: the second step."""
        return self._render("write_right_answer.j2", order, question=question)

    def write_wrong_answer(self, question: str, right: str, order: int, number: int) -> str:
        """Ask for a wrong answer beside the right one: the third step, once for each.

        Args:
            question: As the first step gave it.
            right: As the second gave it.
            order: Of the examples.
            number: Which wrong answer it is to be, from 0: each is shown other ones in examples.
        """
        examples = [
            {
                "question": row["question"],
                "right": _right(row),
                "wrong": _wrong(row)[number % len(_wrong(row))],
            }
            for row in rotate(self.examples, order)
        ]
        return self._fill("write_wrong_answer.j2", examples, question=question, right=right)

    def json_schema(self) -> dict[str, Any]:
        """What structured decoding holds a JSON item to: the answer first, as in the examples."""
        return _object({"answer": {"enum": self.task.choices}, "question": TEXT})

    def own_json_schema(self, negatives: int) -> dict[str, Any]:
        """The same of items with choices of their own; that the answer is one of them it cannot."""
        count = negatives + 1
        choices = {"type": "array", "items": TEXT, "minItems": count, "maxItems": count}
        return _object({"question": TEXT, "choices": choices, "answer": TEXT})

    def score_choice(self, question: str, order: int) -> str:
        """Ask which choice is right; the word of a choice, or its whole text, follows."""
        return self._render("score_choice.j2", order, question=question)

    def score_letter(self, question: str, choices: list[str], order: int, number: int) -> str:
        """List choices in the permutation of that number; the letter of one follows as a token.

        The examples list their own choices in the same permutation.
        """
        examples = [
            {
                "question": row["question"],
                "listed": under_letters(row["choices"], number),
                "letter": LETTERS[permutation(len(row["choices"]), number).index(row["answer"])],
            }
            for row in rotate(self.examples, order)
        ]
        listed = under_letters(choices, number)
        return self._fill("score_letter.j2", examples, question=question, listed=listed)

    def _render(self, name: str, order: int, **values: Any) -> str:
        examples = [
            {"question": row["question"], "answer": _right(row)}
            for row in rotate(self.examples, order)
        ]
        return self._fill(name, examples, **values)

    def _fill(self, name: str, examples: list[dict[str, Any]], **values: Any) -> str:
        return render(
            f"{FOLDER}/{name}",
            instruction=self.task.instruction.replace("{subject}", self.subject),
            question_name=self.task.question_name,
            answer_name=self.task.answer_name,
            examples=examples,
            **values,
        )


TEXT = {"type": "string", "minLength": 1}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _right(row: dict[str, Any]) -> str:
    choice: str = row["choices"][row["answer"]]
    return choice


def _wrong(row: dict[str, Any]) -> list[str]:
    return [choice for choice in row["choices"] if choice != _right(row)]


def under_letters(choices: list[str], number: int) -> list[tuple[str, str]]:
    """Choices as they are listed in the permutation of that number, each with its letter."""
    places = permutation(len(choices), number)
    return [(LETTERS[place], choices[choice]) for place, choice in enumerate(places)]


def rotate(rows: list[Any], by: int) -> list[Any]:
    """Rows from position `by` on, and around: as many orders as there are rows."""
    by %= len(rows) or 1
    return rows[by:] + rows[:by]
