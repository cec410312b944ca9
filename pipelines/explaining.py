"""Training rows of labels and rationales that each come from one zero-shot call (2403.15886).

Every row has a label: the right answer, or the one that was found behind the prompt that the row
was dealt to. Rows that were drawn for it have a rationale, too, of the same call or of another
prompt's. A row without one learns its label alone, or a blank beside it, as the recipe says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from core.errors import WorkError
from core.identity import content_id
from core.recipe_answers import AnswerTask
from core.recipe_rationales import Rationales
from core.rows import TEXT_TRAINING
from core.stage import StageContext, StageResult
from pipelines.answered_rows import answered_rows, answers_of, read_samples, vote
from pipelines.answers import AnswerReader, Found, NotFound
from pipelines.drawing import Draw
from pipelines.questions import Question, Questions
from pipelines.rationale_count import RationaleCount
from pipelines.row_work import Rejection, Row, rejected_table
from pipelines.shard_writer import ShardWriter

ANSWERS = "answers-"
"""What the roles of stages with answers begin with; the prompt's name follows."""

BLANK = " "
"""What is learnt in the place of a rationale that is missing, where a blank is."""


def explain(context: StageContext) -> StageResult:
    """Stage: training rows of students that write: a label each, and rationales of some.

    An answer without a label is rejected as `unparsed` or `outside-choices`, and leaves a row of
    teacher's labels out. A rationale that cannot be learnt is rejected as `no-rationale`,
    `short-rationale`, `long-rationale` or `repeated-rationale`: the row keeps its label alone.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `answers`, by prompt: how
    what is written behind it is read, as of `pipelines.extraction.extract`; `draw`, a
    `pipelines.drawing.Draw` as a dictionary; `rationales`, a `core.recipe_rationales.Rationales` as
    a dictionary; `teacher`, whose rationales these are.
    Inputs: `inputs`, input rows; for each prompt that was asked `answers-NAME`, what was answered.

    Raises:
        WorkError: Not one training row came out.
    """
    explanation = _Explanation(context)
    inputs = context.inputs["inputs"]
    prompts = {
        role.removeprefix(ANSWERS): answered_rows(inputs, folder)
        for role, folder in context.inputs.items()
        if role.startswith(ANSWERS)
    }
    made = ShardWriter(context, TEXT_TRAINING, of=inputs)
    for table in inputs.iter_shards():
        asked = table.to_pylist()
        by_prompt = {name: next(shards) for name, shards in prompts.items()}
        rows: list[Row] = []
        for place, row in enumerate(asked):
            answers = {
                name: [one for listed in shard[place][1].values() for one in listed]
                for name, shard in by_prompt.items()
            }
            rows += explanation.row(row, answers)
        made.write(rows, explanation.take_rejections(), read=len(asked))
    if not made.rows:
        raise WorkError(
            f"stage '{context.stage.stage}'",
            f"no label can be learnt; rejected: {made.reasons}.",
            f"See them in {context.stage.rejected.location}, change the task or the prompt, and "
            "run again with --update: what was answered stays.",
        )
    return made.result(explanation.facts())


@dataclass
class _Explanation:
    """Makes training rows, and counts."""

    context: StageContext
    _rejections: list[tuple[str, Rejection]] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)
    """Ids of rows that were made, some 100 bytes each: equal rows count once."""
    _answers: Counter[str] = field(default_factory=Counter)
    """Of teachers: all that came, those that were read, and those that were outvoted."""

    def __post_init__(self) -> None:
        settings = self.context.settings
        self._task = AnswerTask.model_validate(settings["task"])
        self._draw = Draw(**settings["draw"])
        wanted = Rationales.model_validate(settings["rationales"])
        self._rationales = RationaleCount(wanted, BLANK if wanted.missing == "blank" else None)
        self._questions = Questions(self._task)
        self._readers = {
            name: AnswerReader(self._task, answer)
            for name, answer in answers_of(self.context).items()
        }

    def row(self, row: Row, answers: dict[str, list[Row]]) -> Iterator[Row]:
        """The training row of an input row, if there is one.

        Args:
            row: Of `core.rows.INPUT`.
            answers: By prompt: what was answered, in the order of its samples.
        """
        row_id = bytes.fromhex(row["id"])
        if row_id in self._seen:
            return
        self._seen.add(row_id)
        gold = self._task.labels == "gold"
        question = self._questions.with_right_answer(row) if gold else self._questions.of(row)
        if isinstance(question, Rejection):
            self._rejections.append((row["id"], question))
            return
        found = {name: self._found(name, question, listed) for name, listed in answers.items()}
        label = question.right if gold else found.get(self._draw.label_by(row["id"]) or "")
        if label is None:
            return  # it stands among the rejected answers, here or in the stage that asked
        rationale = self._rationale(row["id"], found)
        if self._task.choices:  # a teacher may always say the same
            self._rationales.label(label.text)
        yield {
            "id": content_id(question.id, label.key),
            "messages": question.asked.messages(),
            "answer": label.text,
            "rationales": rationale
            and [{"teacher": self.context.settings["teacher"], "text": rationale}],
            "weight": 1.0,
            "source": "gold" if gold else self.context.settings["teacher"],
        }

    def _found(self, prompt: str, question: Question, answers: list[Row]) -> Found | None:
        """What a prompt's answers to a question come to."""
        samples = read_samples(answers, self._readers[prompt], question.choices)
        for answer, sample in zip(answers, samples, strict=True):
            if isinstance(sample, NotFound):
                told = Rejection(sample.reason, f"{prompt}: {sample.detail}", answer)
                self._rejections.append((answer["id"], told))
        self._answers["answers"] += len(samples)
        self._answers["read"] += sum(isinstance(sample, Found) for sample in samples)
        winner = vote(samples)
        if winner is None:
            return None
        self._answers["outvoted"] += winner.outvoted
        return winner.found

    def _rationale(self, row_id: str, found: dict[str, Found | None]) -> str | None:
        """What a row learns in the place of a rationale; None for nothing."""
        prompt = self._draw.rationale_by(row_id)
        if prompt is None:
            return self._rationales.missing
        said = found.get(prompt)
        learnt, fault = self._rationales.learnt(said)
        if fault is not None:
            self._rejections.append((row_id, fault))
        return learnt

    def take_rejections(self) -> pa.Table:
        """What was rejected since the last time."""
        teacher = self.context.settings["teacher"]
        found = rejected_table(self.context.stage.stage, self._rejections, teacher)
        self._rejections = []
        return found

    def facts(self) -> dict[str, object]:
        """What the report tells of the rows."""
        counted = ("answers", "read", "outvoted")
        explained = self._rationales.facts()
        return {**{name: self._answers[name] for name in counted}, "explained": explained}
