"""The prompts of few-shot multiple choice (2412.09807), built from the task and its examples.

The examples come first and in few orders, so that prompts share long prefixes and the engine's
prefix cache answers most of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.recipe import Task
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
        """Ask which choice is right; the label of a choice follows as the next token."""
        return self._render("score_choice.j2", order, question=question)

    def labels(self) -> list[str]:
        """The choices as they follow a prompt, with the blank before a word."""
        return [f" {choice}" for choice in self.task.choices]

    def _render(self, name: str, order: int, **values: Any) -> str:
        return render(
            f"{FOLDER}/{name}",
            instruction=self.task.instruction,
            question_name=self.task.question_name,
            answer_name=self.task.answer_name,
            examples=[
                {"question": row["question"], "answer": self.task.choices[row["answer"]]}
                for row in rotate(self.examples, order)
            ],
            **values,
        )


def rotate(rows: list[Any], by: int) -> list[Any]:
    """Rows from position `by` on, and around: as many orders as there are rows."""
    by %= len(rows)
    return rows[by:] + rows[:by]
