"""A teacher whose answers are there already, in files: looked up by prompt, free of charge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from core.errors import UseError
from core.recipe_section import Device
from core.recipe_teachers import RecordedTeacher
from core.teacher import Completion, LabelScores, Sampling, SequenceScore, Usage
from pipelines.record_index import Record, RecordIndex

ROWS_AT_ONCE = 512
"""An answer is there at once; more shards than one are open so that none waits for a disk."""

SHOWN_PROMPT = 200
"""Characters of a prompt in the reason of a rejected row."""


class RecordedAnswers:
    """A teacher that is looked up; implements `core.teacher.Engine`.

    How an answer is to be drawn has no effect on one that is there, but for `stop`: it ends where
    such a text begins.
    """

    def __init__(self, teacher: str, settings: RecordedTeacher, files: Sequence[Path]) -> None:
        """Read the files: the first mistake in them is told before any other teacher is asked.

        Args:
            teacher: Its name in the recipe.
            settings: Its section of the recipe.
            files: The section's files, on this machine.

        Raises:
            StillhouseError: As for `RecordIndex`.
        """
        self.teacher = teacher
        self.model = settings.model
        self.accounted: dict[str, float] = {}
        self.rows_at_once = ROWS_AT_ONCE
        self.device: Device | None = None
        self.desk = None
        self._columns = settings.columns
        self._index = RecordIndex(teacher, files, settings.columns)
        self._requests = 0

    @property
    def replicas(self) -> int:
        """One: there is nothing to repeat."""
        return 1

    async def complete(self, prompt: str, sampling: Sampling) -> Completion:
        """The recorded answer to a prompt, or an error where there is none.

        Raises:
            UseError: The records do not have what is wanted of every row.
        """
        if self._columns.text is None:
            self._refuse("answers", "text")
        if sampling.top_logprobs or sampling.json_schema:
            wanted = "top_logprobs" if sampling.top_logprobs else "json_schema"
            cause = f"a recorded answer is as it is: {wanted} asks for another."
            raise UseError(self._place, cause, "Ask a teacher that runs.")
        # Of a conversation the prompt is all that the user has said: the replies are looked up.
        prompt = "\n".join([*(user for user, _ in sampling.history), prompt])
        found = self._index.find(prompt, sampling.number, sampling.system)
        if found is None:
            missing = self._missing(prompt, sampling.number, sampling.system)
            return Completion("", Usage(), "error", missing, "not-recorded")
        usage = self._count(found)
        if found.text is None:
            return Completion(
                "", usage, "error", "its record of this prompt has no text", "no-text"
            )
        ends = [place for stop in sampling.stop if (place := found.text.find(stop)) >= 0]
        if ends:
            return Completion(found.text[: min(ends)], usage, "stop")
        return Completion(found.text, usage, "recorded")

    async def score_labels(self, prompt: str, labels: list[str]) -> LabelScores:
        """The recorded scores of labels after a prompt, from its first record.

        A label is looked for as it stands here, and then without the blanks around it.

        Raises:
            UseError: The records hold no scores.
        """
        if self._columns.labels is None:
            self._refuse("scores of labels", "labels")
        found = self._index.find(prompt, 0)
        if found is None:
            return LabelScores([], error=self._missing(prompt, 0), reason="not-recorded")
        usage = self._count(found)
        scores = json.loads(found.labels or "{}")
        logprobs = [scores.get(label, scores.get(label.strip())) for label in labels]
        if None in logprobs:
            label = labels[logprobs.index(None)]
            error = f"its record of this prompt has no score of {label!r}"
            return LabelScores([], usage, error, "no-score")
        return LabelScores(logprobs, usage)

    async def score_text(self, prompt: str, text: str) -> SequenceScore:  # noqa: ARG002
        """Refuse: records hold no scores of a given text."""
        raise UseError(
            self._place, "recorded answers cannot score a text.", "Score with a teacher on vllm."
        )

    def statistics(self) -> dict[str, float]:
        """Answers that were found; no device is held for them, and no token is paid."""
        return {"startup": 0.0, "useful": 0.0, "idle": 0.0, **asdict(Usage(self._requests))}

    def processes(self) -> list[int]:
        """None: whoever asks looks it up."""
        return []

    def demand(self, rows: int, seconds_left: float) -> None:
        """Nothing follows: there is nothing to scale."""

    def forget_prompts(self) -> None:
        """Nothing follows: nothing is computed that a cache could save."""

    def close(self) -> None:
        """Give back the disk that the index takes."""
        self._index.close()

    async def disconnect(self) -> None:
        """Nothing belongs to the event loop."""

    @property
    def _place(self) -> str:
        return f"teacher '{self.teacher}'"

    def _count(self, found: Record) -> Usage:
        self._requests += 1
        return Usage(1, found.tokens_in, None, found.tokens_out)

    def _refuse(self, what: str, field: str) -> None:
        raise UseError(
            self._place,
            f"its records hold no {what}.",
            f"Name the column that has them in teachers.{self.teacher}.columns.{field}, or take "
            "another teacher.",
        )

    def _missing(self, prompt: str, number: int, system: str = "") -> str:
        """Why there is no answer, in a sentence for the rejected row."""
        there = self._index.count(prompt, system)
        if there:
            records = f"{there} record{'s' * (there > 1)}"
            said = f"this prompt has {records}, and answer {number + 1} is wanted"
        else:
            shown = prompt.strip()
            cut = shown[:SHOWN_PROMPT] + "..." * (len(shown) > SHOWN_PROMPT)
            behind = self._columns.system is not None and system.strip()
            said = f"no record has {'its system text and ' if behind else ''}the prompt {cut!r}"
        if self._index.unusable:
            said += (
                f"; {self._index.unusable} in the files could not be used, the first: "
                f"{self._index.first_unusable}"
            )
        return said
