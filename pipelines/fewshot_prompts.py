"""The prompts of few-shot multiple choice (2412.09807), built from the task and its examples.

The examples come first and in few orders, so that prompts share long prefixes and the engine's
prefix cache answers most of them.
"""

from __future__ import annotations

from dataclasses import dataclass
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

    def write_question(self, answer: int, order: int) -> str:
        """Ask for a question whose right answer is `task.choices[answer]`."""
        return self._render("write_question.j2", order, answer=self.task.choices[answer])

    def write_json(self, order: int) -> str:
        """Ask for a whole item as one line of JSON."""
        return self._render("write_json.j2", order)

    def json_schema(self) -> dict[str, Any]:
        """What structured decoding holds a JSON item to: the answer first, as in the examples."""
        return {
            "type": "object",
            "properties": {
                "answer": {"enum": self.task.choices},
                "question": {"type": "string", "minLength": 1},
            },
            "required": ["answer", "question"],
            "additionalProperties": False,
        }

    def score_choice(self, question: str, order: int) -> str:
        """Ask which choice is right; the word of a choice follows as the next token."""
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
            {"question": row["question"], "answer": self.task.choices[row["answer"]]}
            for row in rotate(self.examples, order)
        ]
        return self._fill(name, examples, **values)

    def _fill(self, name: str, examples: list[dict[str, Any]], **values: Any) -> str:
        return render(
            f"{FOLDER}/{name}",
            instruction=self.task.instruction,
            question_name=self.task.question_name,
            answer_name=self.task.answer_name,
            examples=examples,
            **values,
        )


def under_letters(choices: list[str], number: int) -> list[tuple[str, str]]:
    """Choices as they are listed in the permutation of that number, each with its letter."""
    places = permutation(len(choices), number)
    return [(LETTERS[place], choices[choice]) for place, choice in enumerate(places)]


def rotate(rows: list[Any], by: int) -> list[Any]:
    """Rows from position `by` on, and around: as many orders as there are rows."""
    by %= len(rows)
    return rows[by:] + rows[:by]
