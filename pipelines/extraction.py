"""From what teachers answered to training rows: what is found in it, behind the plain prompt.

This is the data of 2410.18588, equation 7. Each different answer to a row becomes one training row.
Teachers that answered the same share it: it weighs as much as they do together, and has the
rationales of all of them. So teachers that disagree pull a student both ways, as a soft label
would. With gold labels a row becomes one training row, whatever was answered; its rationales are
those of all answers that could be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from core.errors import WorkError
from core.identity import content_id
from core.recipe_answers import AnswerTask
from core.recipe_prompts import Answer
from core.rows import TEXT_TRAINING, TRAINING
from core.stage import StageContext, StageResult
from pipelines.answered_rows import Answers, answered_rows, answers_of, read_samples, vote
from pipelines.answers import AnswerReader, Found, NotFound
from pipelines.questions import Question, Questions
from pipelines.row_work import Rejection, Row, rejected_table
from pipelines.shard_writer import ShardWriter

TOKENS = ("token_ids", "top_ids", "top_logprobs")
"""Columns of an answer that are of use where its text is learnt as it was written."""


def extract(context: StageContext) -> StageResult:
    """Stage: the training rows of students that choose, or of those that write.

    An answer that cannot be used is rejected as `unparsed` or `outside-choices`, under its own id;
    a row that no student can be asked about, under the row's.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `answers`, by teacher: how
    its prompt says that the answer is found, a `core.recipe_prompts.Answer` as a dictionary, or
    None; `form`, `choices` or `text`, the kind of training rows.
    Inputs: `inputs`, input rows; `answers`, what teachers answered to them, if they were asked.

    Raises:
        WorkError: Not one training row came out.
    """
    task = AnswerTask.model_validate(context.settings["task"])
    inputs, answers = context.inputs["inputs"], context.inputs.get("answers")
    extraction = _Extraction(task, context.settings["form"], answers_of(context))
    schema = TRAINING if context.settings["form"] == "choices" else TEXT_TRAINING
    made = ShardWriter(context, schema, of=inputs)
    for shard in answered_rows(inputs, answers, () if extraction.extracts else TOKENS):
        rows = [one for row, by_teacher in shard for one in extraction.rows(row, by_teacher)]
        made.write(rows, extraction.take_rejections(context.stage.stage), read=len(shard))
    if not made.rows:
        raise WorkError(
            f"stage '{context.stage.stage}'",
            f"no answer can be learnt; rejected: {made.reasons}.",
            f"See them in {context.stage.rejected.location}, change the task in the recipe, and "
            "run again with --update: what was answered stays.",
        )
    return made.result(extraction.facts)


@dataclass
class _Label:
    """An answer that a row is trained on."""

    found: Found
    weight: float = 0.0
    sources: list[str] = field(default_factory=list)
    rationales: list[Row] = field(default_factory=list)


class _Extraction:
    """Makes training rows, and counts."""

    def __init__(
        self, task: AnswerTask, form: str, answers: Mapping[str, Answer | None] | None = None
    ) -> None:
        self._task = task
        self._form = form
        self._answers = answers or {}
        self._questions = Questions(task)
        self._rejections: dict[str | None, list[tuple[str, Rejection]]] = {}
        self._seen: set[bytes] = set()
        """Ids of rows with gold labels, some 100 bytes each: equal rows count once."""
        self.facts = {"answers": 0, "read": 0, "outvoted": 0}

    @property
    def extracts(self) -> bool:
        """Whether answers are found in texts, and are not the texts as they were written."""
        return self._task.extracts or any(self._answers.values())

    def take_rejections(self, stage: str) -> pa.Table:
        """What was rejected since the last time."""
        tables = [
            rejected_table(stage, listed, teacher) for teacher, listed in self._rejections.items()
        ]
        self._rejections = {}
        return pa.concat_tables([rejected_table(stage, []), *tables])

    def rows(self, row: Row, answers: Answers) -> Iterator[Row]:
        """The training rows of an input row."""
        gold = self._task.labels == "gold"
        if gold:
            row_id = bytes.fromhex(row["id"])
            if row_id in self._seen:
                return
            self._seen.add(row_id)
        elif not answers:  # nobody answered, which stands in the stage that asked
            return
        questions = self._questions
        question = questions.with_right_answer(row) if gold else questions.of(row)
        if isinstance(question, Rejection):
            self._reject(None, row["id"], question)
        elif self._task.converses:
            yield from self._turns(question, answers)
        elif self.extracts or gold:
            for label in self._labels(question, answers):
                yield self._row(question, label)
        else:
            yield from self._as_written(question, answers)

    def _labels(self, question: Question, answers: Answers) -> list[_Label]:
        """The different answers to a question."""
        labels: dict[str, _Label] = {}
        right = question.right if self._task.labels == "gold" else None
        if right is not None:
            labels[right.key] = _Label(right, 1.0, ["gold"])
        for teacher, listed in answers.items():
            reader = AnswerReader(self._task, self._answers.get(teacher))
            samples = read_samples(listed, reader, question.choices)
            for answer, sample in zip(listed, samples, strict=True):
                if isinstance(sample, NotFound):
                    told = Rejection(sample.reason, sample.detail, answer)
                    self._reject(teacher, answer["id"], told)
            self.facts["answers"] += len(samples)
            self.facts["read"] += sum(isinstance(sample, Found) for sample in samples)
            winner = vote(samples)
            if winner is None:
                continue
            self.facts["outvoted"] += winner.outvoted
            if right is None:
                label = labels.setdefault(winner.found.key, _Label(winner.found))
                label.weight += winner.share if self._task.weight == "agreement" else 1.0
                label.sources.append(teacher)
            else:
                label = labels[right.key]
            if winner.found.rationale is not None:
                label.rationales.append({"teacher": teacher, "text": winner.found.rationale})
        return list(labels.values())

    def _row(self, question: Question, label: _Label) -> Row:
        common = {
            "id": content_id(question.id, label.found.key),
            "weight": label.weight,
            "source": "+".join(label.sources),
        }
        if self._form == "choices":
            return common | {
                "question": question.text,
                "choices": question.choices,
                "answer": label.found.choice,
                "logits": None,
            }
        return common | {
            "messages": question.asked.messages(),
            "answer": label.found.text,
            "rationales": label.rationales or None,
        }

    def _as_written(self, question: Question, answers: Answers) -> Iterator[Row]:
        """Every answer as a training row of its own, with its teacher's tokens."""
        for teacher, listed in answers.items():
            for answer in listed:
                self.facts["answers"] += 1
                self.facts["read"] += 1
                yield {
                    "id": answer["id"],
                    "messages": question.asked.messages(),
                    "answer": answer["text"],
                    "weight": 1.0,
                    "source": teacher,
                    **{name: answer[name] for name in TOKENS},
                }

    def _turns(self, question: Question, answers: Answers) -> Iterator[Row]:
        """Every reply as a training row, behind all that was said before it."""
        for teacher, listed in answers.items():
            for answer in listed:
                self.facts["answers"] += 1
                self.facts["read"] += 1
                replies = answer["replies"]
                for number, reply in enumerate(replies):
                    yield {
                        "id": content_id(answer["id"], number),
                        "messages": question.asked.messages(replies[:number]),
                        "answer": reply,
                        "weight": 1.0,
                        "source": teacher,
                    }

    def _reject(self, teacher: str | None, row_id: str, rejection: Rejection) -> None:
        self._rejections.setdefault(teacher, []).append((row_id, rejection))
