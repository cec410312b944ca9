"""The search for an instruction by proposals and scores (OPRO: 2309.03409; here as in 2403.15886).

Each round an optimizer is shown the best instructions so far, in rising order of their scores, and
proposes some others. Those that are some are scored by the share of right answers of the teacher to
the scoring rows, which are the same in every round. In the end the best few are compared on the
validation rows. The winner, and the best of those that the search began with, are scored once on
rows that nothing was chosen by.

Every question is a planned row, and a round's questions are shards of the one stage: they are
committed as any stage's are, found again by their ids after a kill, and never asked twice. A round
without a valid proposal changes nothing but the number of the next one, which draws again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from typing import Any

from core.errors import WorkError
from core.identity import content_id
from core.models import teacher_revision
from core.recipe_answers import AnswerTask
from core.recipe_prompts import Answer
from core.rows import PROMPT_QUERY
from core.stage import StageContext, StageResult
from core.teacher import Engine, Sampling
from pipelines.answers import AnswerReader, Found
from pipelines.asked_texts import FILLING_ERRORS, Asked, fill_in
from pipelines.instructions import Checks, key_of
from pipelines.questions import Question, Questions, each
from pipelines.row_work import Rejection, Row
from pipelines.shards import Lane, run_shards

QUERY_ROWS = 8
"""Questions that are committed together: few, as a search has few, and none is to be paid twice."""


def optimize(context: StageContext) -> StageResult:
    """Stage: the best instruction for a teacher's prompt.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `teacher`, whose prompt it
    is; `prompt`, `user` and `system` of it with `{{ instruction }}`; `answer`, how what is written
    behind it is read; `seeded` and `sampling`, how it is drawn; `search`, a
    `core.recipe_optimize.Optimize` as a dictionary; `rounds`.
    Inputs: `rows`, rows with right answers.

    Raises:
        WorkError: There are fewer rows than the samples want.
    """
    search = _Search(context)
    search.score_start()
    for number in range(1, context.settings["rounds"] + 1):
        search.round(number)
    facts = search.finish()
    return StageResult(search.shards, search.rows, dict(search.rejected), facts)


@dataclass(frozen=True)
class AskQuery:
    """Puts one question of a search to a teacher; the work of a planned row.

    What is planned has its `prompt`, with `system` before it; one to a row of the data has the
    row's `choices`, and in `wanted` the key of the right answer.
    """

    engine: Engine
    sampling: Sampling
    seeded: bool
    task: dict[str, Any]
    answer: dict[str, Any] | None

    schema = PROMPT_QUERY

    async def __call__(self, row: Row) -> Row | Rejection:
        """Take the answer as it comes, and judge it where there is a right one."""
        seed = int(row["id"][:8], 16) if self.seeded else None
        sampling = replace(
            self.sampling,
            seed=seed,
            number=row["number"],
            system=row["system"] or self.sampling.system,
        )
        answer = await self.engine.complete(row["prompt"], sampling)
        if answer.finish == "error":
            return Rejection(answer.reason, answer.error, row)
        return {
            "id": row["id"],
            "round": row["round"],
            "use": row["use"],
            "instruction": row["instruction"],
            "item": row["item"],
            "teacher": self.engine.teacher,
            "text": answer.text,
            "right": None if row["wanted"] is None else self._right(row, answer.text),
            "usage": vars(answer.usage),
        }

    def _right(self, row: Row, text: str) -> bool:
        task = AnswerTask.model_validate(self.task)
        answer = None if self.answer is None else Answer.model_validate(self.answer)
        found = AnswerReader(task, answer).read(text, row["choices"])
        return isinstance(found, Found) and found.key == row["wanted"]


@dataclass
class _Tried:
    """An instruction that was scored."""

    text: str
    round: int
    scores: dict[str, float] = field(default_factory=dict)
    """By use of the rows: the share of right answers."""

    @property
    def score(self) -> int:
        """On the scoring rows, from 0 to 100."""
        return round(100 * self.scores["scoring"])


class _Search:
    """A search while it goes on; after a kill it finds what is committed, and is the same."""

    def __init__(self, context: StageContext) -> None:
        settings, self._search = context.settings, context.settings["search"]
        loaded = context.recipe
        # Shards of few rows, whatever other stages have.
        small = min(QUERY_ROWS, loaded.recipe.shard_rows)
        recipe = loaded.recipe.model_copy(update={"shard_rows": small})
        self._context = replace(context, recipe=replace(loaded, recipe=recipe))
        self._task = AnswerTask.model_validate(settings["task"])
        self._checks = Checks(self._search["placeholders"], self._search["max_characters"])
        self._samples = self._drawn(context)
        self._tried: list[_Tried] = []
        self._known: set[str] = set()
        self._rounds: list[dict[str, Any]] = []
        self.shards: list[str] = []
        self.rows = 0
        self.rejected: Counter[str] = Counter()

    def _drawn(self, context: StageContext) -> dict[str, list[tuple[Row, Question]]]:
        """The rows of each use, dealt out by a hash of their ids; none has two uses."""
        questions = Questions(self._task)
        found = []
        for row in each(context.inputs["rows"]):
            question = questions.with_right_answer(row)
            if not isinstance(question, Rejection):
                found.append((row, question))
        found.sort(key=lambda pair: blake2b(f"use.{pair[0]['id']}".encode()).digest())
        sizes = {use: self._search[use] for use in USES}
        wanted = sum(sizes.values())
        if len(found) < wanted:
            uses = ", ".join(f"{size} for {use}" for use, size in sizes.items())
            raise WorkError(
                "optimize",
                f"there are {len(found)} rows with right answers, and {wanted} are wanted: {uses}.",
                "Give more rows, or make optimize.scoring, validation or held_out smaller.",
            )
        ends = {}
        begin = 0
        for use, size in sizes.items():
            ends[use] = found[begin : begin + size]
            begin += size
        return ends

    def score_start(self) -> None:
        """Score the instructions that the search begins with."""
        self._score("scoring", [_Tried(text, 0) for text in self._search["start"]], 0)

    def round(self, number: int) -> None:
        """Have instructions proposed, and score those that are some."""
        proposals = self._propose(number)
        faults: Counter[str] = Counter()
        some: list[_Tried] = []
        for proposal in proposals:
            known = self._known | {key_of(one.text) for one in some}
            fault = self._checks.fault(proposal, known)
            if fault is None:
                assert proposal is not None, "it has no fault"
                some.append(_Tried(proposal.strip(), number))
            else:
                faults[fault.reason] += 1
        faults["no-answer"] = self._search["candidates"] - len(proposals)
        self._score("scoring", some, number)
        self._rounds.append(
            {
                "round": number,
                "proposed": self._search["candidates"],
                "valid": len(some),
                "faults": {reason: count for reason, count in faults.items() if count},
                "best": max(one.score for one in self._tried),
            }
        )

    def finish(self) -> dict[str, Any]:
        """Compare the best on the validation rows, and score the winner where it has not been.

        Returns:
            The facts of the stage.
        """
        ranked = sorted(self._tried, key=lambda one: -one.score)  # of equals the earlier
        finalists = ranked[: self._search["finalists"]]
        self._score("validation", finalists, None)
        winner = max(finalists, key=lambda one: (one.scores["validation"], one.score))
        first = next(one for one in ranked if one.round == 0)
        self._score("held_out", list({id(one): one for one in (winner, first)}.values()), None)
        settings = self._context.settings
        prompt = self._prompt(winner.text)
        chosen = {
            "prompt": prompt if prompt["system"] else prompt["user"],
            "answer": settings["answer"],
            "sampling": settings["sampling"],
        }
        return {
            "chosen": {settings["teacher"]: chosen},
            "winner": self._tried.index(winner),
            "first": self._tried.index(first),
            "tried": [asdict(one) for one in self._tried],
            "rounds": self._rounds,
            "rows": {use: len(rows) for use, rows in self._samples.items()},
        }

    def _prompt(self, instruction: str) -> dict[str, str]:
        """The teacher's prompt with an instruction in it: Jinja texts."""
        texts = self._context.settings["prompt"]
        return {part: self._checks.put_into(text, instruction) for part, text in texts.items()}

    def _propose(self, number: int) -> list[str | None]:
        """What the optimizer proposes in a round; None where it wrote no instruction."""
        asked = self._meta_prompt()
        search, sampling = self._search, self._search["sampling"]
        drawn = Sampling(**{**sampling, "stop": tuple(sampling["stop"])})
        plan: list[Row] = [
            {
                "use": "proposal",
                "round": number,
                "number": candidate,
                "item": None,
                "instruction": None,
                "prompt": asked.turns[0],
                "system": asked.system,
                "choices": [],
                "wanted": None,
            }
            for candidate in range(search["candidates"])
        ]
        # An optimizer draws: a seed of its own tells each proposal apart, and the rounds.
        answers = self._ask(f"{number}p", search["optimizer"], plan, drawn, seeded=True)
        read = AnswerReader(PLAIN, Answer.model_validate(search["meta_prompt"]["answer"] or {}))
        found = [read.read(one["text"], []) for one in answers]
        return [one.text if isinstance(one, Found) else None for one in found]

    def _meta_prompt(self) -> Asked:
        search, meta = self._search, self._search["meta_prompt"]
        best = sorted(self._tried, key=lambda one: -one.score)[: search["keep"]]
        exemplars = [
            {"input": question.text, "output": question.right.text}
            for _, question in self._samples["scoring"][: search["exemplars"]]
            if question.right is not None
        ]
        fields = {
            "scored": [{"text": one.text, "score": one.score} for one in reversed(best)],
            "exemplars": exemplars,
            "placeholders": list(search["placeholders"]),
        }
        return fill_in(meta["user"], meta["system"], fields)

    def _score(self, use: str, tried: Sequence[_Tried], number: int | None) -> None:
        """Score instructions on the rows of a use."""
        settings = self._context.settings
        sample = self._samples[use]
        plan = [row for one in tried for row in self._questions(use, one, sample, number)]
        sampling = Sampling(**{**settings["sampling"], "stop": tuple(settings["sampling"]["stop"])})
        what = use if number is None else f"{number}s"
        answers = self._ask(what, settings["teacher"], plan, sampling, seeded=settings["seeded"])
        right = Counter(row["instruction"] for row in answers if row["right"])
        for one in tried:
            one.scores[use] = right[content_id(one.text)] / len(sample)
            if use == "scoring":
                self._tried.append(one)
                self._known.add(key_of(one.text))

    def _questions(
        self,
        use: str,
        tried: _Tried,
        sample: Sequence[tuple[Row, Question]],
        number: int | None,
    ) -> Iterator[Row]:
        prompt = self._prompt(tried.text)
        for row, question in sample:
            try:
                asked = fill_in(prompt["user"], prompt["system"], json.loads(row["fields"]))
            except FILLING_ERRORS as error:
                raise WorkError(
                    "optimize",
                    f"the prompt cannot be filled in with row {row['id']}: {error}.",
                    "Change ask.prompt or the placeholders.",
                ) from None
            assert question.right is not None, "drawn among those that have one"
            yield {
                "use": use,
                "round": number or 0,
                "number": 0,
                "item": row["id"],
                "instruction": content_id(tried.text),
                "prompt": asked.turns[0],
                "system": asked.system,
                "choices": question.choices,
                "wanted": question.right.key,
            }

    def _ask(
        self,
        what: str,
        teacher: str,
        plan: Iterable[Row],
        sampling: Sampling,
        *,
        seeded: bool,
    ) -> list[Row]:
        """Ask what is not committed yet.

        Args:
            what: Names the step, in the plan on disk and in the ledger.
            teacher: Who is asked.
            plan: Rows without their ids.
            sampling: How answers are drawn.
            seeded: Whether each is drawn with a seed of its own.

        Returns:
            The answers that there are, in the order of the plan.
        """
        context, settings = self._context, self._context.settings
        parts = {
            "teacher": teacher,
            "model": teacher_revision(teacher, context.recipe),
            "sampling": sampling.parts(),
            "seed": context.recipe.recipe.seed,
        }
        rows = [{"id": content_id(parts, _own(row)), **row} for row in plan]
        if not rows:
            return []
        engine = context.engine(teacher)
        work = AskQuery(engine, sampling, seeded, settings["task"], settings["answer"])
        step = replace(
            context,
            # Each step has a plan on disk and entries in the ledger of its own.
            fingerprint=content_id(context.fingerprint, what),
            attempt=f"{context.attempt}-{what}",
            show=lambda progress: context.show(replace(progress, unit=f"questions, {what}")),
        )
        result = run_shards(step, [Lane(engine, rows, work)])
        self.shards += result.shards
        self.rows += result.rows
        self.rejected.update(result.rejected)
        found = {
            row["id"]: row
            for key in result.shards
            for row in context.stage.rows.read_table(f"{key}.parquet").to_pylist()
        }
        return [found[row["id"]] for row in rows if row["id"] in found]


USES = ("scoring", "validation", "held_out")
"""What rows are for; each is a key of `core.recipe_optimize.Optimize` with their number."""

PLAIN = AnswerTask(kind="text", prompt="-")
"""An instruction is a text like any other."""


def _own(row: Row) -> dict[str, Any]:
    """What of a planned row decides its answer: a proposal is drawn anew in every round."""
    own = {name: row[name] for name in ("prompt", "system", "number")}
    return own | {"round": row["round"]} if row["use"] == "proposal" else own
