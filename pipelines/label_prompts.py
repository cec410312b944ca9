"""The prompts by which choices are scored: after each, a label stands for each choice."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.fewshot_prompts import FOLDER, FewshotPrompts
from pipelines.permutations import LETTERS, permutation


@dataclass(frozen=True)
class LabelPrompt:
    """One question, ready to be scored."""

    text: str
    labels: list[str]
    """By place: what may follow the text, with the blank before a word."""
    listed: list[int]
    """By place: the choice that the label stands for."""


@dataclass(frozen=True)
class LabelPrompts:
    """All prompts over which a row's score is averaged; the first is the plainest."""

    prompts: FewshotPrompts
    orders: int
    """Orders of the examples."""
    permutations: int | None = None
    """Orders in which choices are listed under letters, for each order of the examples; None for
    the choices' own words as labels, which are not listed."""
    whole: bool = False
    """Whether a choice is scored by all tokens of its text; otherwise its label is one token."""

    @property
    def file(self) -> str:
        """The prompt file that is filled in."""
        return f"{FOLDER}/score_{'choice' if self.permutations is None else 'letter'}.j2"

    def ask(
        self, question: str, choices: list[str], subject: str | None = None
    ) -> list[LabelPrompt]:
        """The prompts of one row: every permutation of its choices in every order."""
        prompts = self.prompts.about(subject)
        if self.permutations is None:
            words, listed = [f" {choice}" for choice in choices], list(range(len(choices)))
            return [
                LabelPrompt(prompts.score_choice(question, order), words, listed)
                for order in range(self.orders)
            ]
        letters = [f" {letter}" for letter in LETTERS[: len(choices)]]
        return [
            LabelPrompt(
                prompts.score_letter(question, choices, order, number),
                letters,
                permutation(len(choices), number),
            )
            for order in range(self.orders)
            for number in range(self.permutations)
        ]
