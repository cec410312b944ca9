"""A teaching assistant: what is acquired and trusted, by recorded teachers and given rows."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import runpy
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from core.errors import StillhouseError, UseError, WorkError
from core.identity import content_id
from core.prices import TokenPrice
from core.recipe import LoadedRecipe
from core.recipe_answers import AnswerTask
from core.recipe_file import load_recipe
from core.rows import ANSWERED, ASSESSED, INPUT, SAMPLED
from core.run import Folder, Manifest, Run
from core.stage import StageContext
from core.teacher import LabelScores, SequenceScore
from pipelines.acquiring import acquire
from pipelines.asked_texts import Asked
from pipelines.assessing import AssessAnswer
from pipelines.questions import Questions
from pipelines.row_work import Rejection, rejected_table
from pipelines.teacher_budget import dearest, draw_warm_up, rows_of_warm_up
from stillhouse.methods import lay_out, recipe_model
from stillhouse.reporting import write_report
from stillhouse.workflow import Workflow, plan_run
from tests.unit.test_recorded import stage_of, write_lines

SHARED = os.environ.get("STILLHOUSE_SHARED")

ROWS = 40
PLACES = ["lake", "dam", "sea"]
PRICE = TokenPrice(input_per_million=1.0, output_per_million=2.0, source="a test")
NO_NUMBER = math.nan

RECIPE = """\
name: places
method: teaching_assistant
shard_rows: 16
inputs: {file: train.jsonl}
teachers:
  palm: {backend: recorded, model: palm-540b, files: [palm.jsonl]}
  aide:
    backend: recorded
    model: aide
    files: [aide.jsonl]
    columns: {text: null, labels: logprobs}
ask:
  palm: {prompt: "Think: {{ question }}"}
task:
  kind: choices
  choices: [lake, dam, sea]
  prompt: "{{ question }}"
  gold: answer
  answer: {pattern: 'So (.*)', rationale_pattern: '(?s)^(.*?)So'}
assist:
  teacher: aide
  budget: {calls: 20}
  warm_up: 0
  acquire: {by: random}
  trust: {by: filter, below: 0.5}
  confidence:
    prompt: "{{ asked }} It is {{ answer }}{% if rationale %} as {{ rationale }}{% endif %}. Right?"
students:
  writer:
    family: causal
    model: embedded://smollm2-135m-instruct
    train: {objective: {kind: sequence, rationale_weights: {palm: 1.0}}}
"""


def said_to(n):
    """Of every fourth row the wrong place, of some no reason or none that can be read."""
    wrong = PLACES[(n + (n % 4 == 0)) % 3]
    if n % 10 == 9:
        return "I cannot tell."
    return f"So {wrong}" if n % 10 == 5 else f"Fish of the kind {n} live there. So {wrong}"


def sureness(n):
    """The assistant doubts wrong answers, and one right one."""
    if n % 4 == 0 or n == 6:
        return {" yes": math.log(0.1), " no": math.log(0.3)}
    return {" yes": math.log(0.6), " no": math.log(0.2)}


@pytest.fixture
def folder(tmp_path):
    numbers = range(ROWS)
    asked = [{"question": f"Where {n}?", "answer": PLACES[n % 3]} for n in numbers]
    write_lines(tmp_path / "train.jsonl", asked)
    write_lines(
        tmp_path / "palm.jsonl",
        [{"prompt": f"Think: Where {n}?", "text": said_to(n)} for n in numbers],
    )
    records = []
    for n in numbers:
        why, _, place = said_to(n).partition("So ")
        because = f" as {why.strip()}" if why else ""
        prompt = f"Where {n}? It is {place}{because}. Right?"
        if n != 7:  # of which it has said nothing
            records.append({"prompt": prompt, "logprobs": sureness(n)})
    write_lines(tmp_path / "aide.jsonl", records)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


class Unseen:
    """A display that shows nothing."""

    def __getattr__(self, name):
        return lambda *_: None


def run(folder, *settings, until="teach"):
    """Run the stages up to one, in this process: nothing of it needs Ray."""
    loaded = load_recipe(folder / "recipe.yaml", recipe_model, settings=settings)
    place = Run(Folder(str(folder / "run")))
    plan = plan_run(loaded, place)
    Workflow(plan, Unseen(), plan.until(until)).run()
    return place


def learnt(folder):
    """By the number of the question: its label, its rationale and its weight."""
    found = {}
    for row in stage_of(folder, "teach").read().to_pylist():
        n = int(row["messages"][-1]["content"].removeprefix("Where ").removesuffix("?"))
        texts = [r["text"] for r in row["rationales"] or []]
        found[n] = (row["answer"], texts[0] if texts else None, row["weight"])
    return found


def bought(folder):
    rows = stage_of(folder, "acquire").read().to_pylist()
    return {int(json.loads(row["fields"])["question"][6:-1]) for row in rows}


def test_a_budget_of_all_rows_is_filtered_by_what_the_assistant_trusts(folder):
    place = run(folder, "assist.budget.calls=40")
    rows = learnt(folder)
    unreadable = {n for n in range(ROWS) if n % 10 == 9}
    doubted = {n for n in range(ROWS) if n % 4 == 0} | {6}
    assert set(rows) == set(range(ROWS)) - unreadable - doubted - {7}
    for n, (label, why, weight) in rows.items():
        assert label == PLACES[n % 3], "all wrong ones were doubted"
        assert why == (None if n % 10 == 5 else f"Fish of the kind {n} live there.")
        assert weight == 1.0
    manifest = stage_of(folder, "teach").manifest()
    assert manifest.rejected == {
        "untrusted": 11,
        "unparsed": 4,
        "no-rationale": 4,
        "unassessed": 1,
    }
    facts = manifest.facts
    # 36 answers can be read, 10 of them are wrong; 24 are learnt.
    assert facts["before"] == {"labels": 36, "precision": 26 / 36}
    assert facts["after"] == {"labels": 24, "precision": 1.0}
    # Of 25 right and 10 wrong ones with a number only row 6 is right with no more than a wrong one.
    assert facts["teacher"]["answers"] == 35
    assert facts["teacher"]["auroc"] == pytest.approx((24 + 0.5) / 25)
    assert stage_of(folder, "assess-teacher").manifest().rejected == {"not-recorded": 1}
    _, summary = write_report(place)
    console = Console(width=120)
    with console.capture() as shown:
        console.print(summary)
    assert re.search(r"the assistant, in the teacher +35 +71\.4% +0\.593 +0\.980", shown.get())
    assert re.search(r"labels, learnt +24 +100.0%", shown.get())
    report = json.loads((folder / "run" / "report.json").read_text())
    found = report["assistance"]
    assert (found["calls"], found["warm_up"], found["acquired"]) == (40, 0, 40)
    assert found["money"] == 0
    (signal,) = found["signals"]
    assert signal["name"] == "the assistant, in the teacher"
    page = (folder / "run" / "report.html").read_text()
    assert "What the budget bought" in page
    assert "AUROC" in page


def test_weights_shares_gold_and_everything(folder):
    run(folder, "assist.budget.calls=40", "assist.trust={by: weight}")
    weights = {n: weight for n, (_, _, weight) in learnt(folder).items()}
    assert weights[1] == pytest.approx(0.75)
    assert weights[4] == pytest.approx(0.25)
    assert len(weights) == 35
    after = stage_of(folder, "teach").manifest().facts["after"]
    # 24 right ones at 0.75, one right and ten wrong ones at 0.25.
    assert after["precision"] == pytest.approx((24 * 0.75 + 0.25) / (24 * 0.75 + 11 * 0.25))
    run(folder, "assist.budget.calls=40", "assist.trust={by: filter, share: 0.2}")
    assert len(learnt(folder)) == 35 - 7
    run(folder, "assist.budget.calls=40", "assist.trust={by: gold}")
    assert all(label == PLACES[n % 3] for n, (label, _, _) in learnt(folder).items())
    assert len(learnt(folder)) == 26
    run(folder, "assist.budget.calls=40", "assist.trust={by: everything}")
    assert len(learnt(folder)) == 36
    assert stage_of(folder, "teach").manifest().facts["teacher"] is None
    stages = Run(Folder(str(folder / "run"))).finished_stages()
    assert "assess-teacher" not in stages, "nobody asks the assistant in vain"


def test_random_rows_are_as_many_as_the_budget_and_nested(folder):
    some = {}
    for calls in (5, 20):
        run(folder, f"assist.budget.calls={calls}")
        some[calls] = bought(folder)
        assert len(some[calls]) == calls
        assert stage_of(folder, "ask").manifest().rows == calls
    assert some[5] < some[20]
    run(folder, "assist.budget.calls=5", "seed=1")
    assert bought(folder) != some[5]
    # Two samples of a row are two calls: here nobody has recorded a second one.
    run(folder, "assist.budget.calls=9", "ask.palm.samples=2", until="acquire")
    assert len(bought(folder)) == 4


def test_a_teacher_that_always_says_the_same_is_told(folder):
    records = [{"prompt": f"Think: Where {n}?", "text": "So dam"} for n in range(ROWS)]
    write_lines(folder / "palm.jsonl", records)
    records = [
        {"prompt": f"Where {n}? It is dam. Right?", "logprobs": {" yes": -1.0, " no": -1.5}}
        for n in range(ROWS)
    ]
    write_lines(folder / "aide.jsonl", records)
    place = run(folder, "assist.budget.calls=40")
    facts = stage_of(folder, "teach").manifest().facts
    assert facts["explained"]["most_frequent"] == {"label": "dam", "share": 1.0}
    assert facts["teacher"]["auroc"] == 0.5, "the same confidence in all tells nothing"
    write_report(place)
    page = (folder / "run" / "report.html").read_text()
    assert "100.0% of the rows have the label dam" in page


def test_an_assistant_without_any_number_ends_the_run(folder):
    write_lines(folder / "aide.jsonl", [{"prompt": "Else?", "logprobs": sureness(1)}])
    with pytest.raises(WorkError, match=r"aide gave no confidence in any answer.*not-recorded"):
        run(folder)


def test_a_filter_that_leaves_nothing_ends_the_run_before_the_training(folder):
    with pytest.raises(WorkError, match=r"nothing of what the teacher .* can be learnt.*untrusted"):
        run(folder, "assist.trust.below=0.9")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("assist.budget={calls: 0}", "nothing may be asked"),
        ("assist.budget={money: 0.0}", "nothing may be asked"),
        ("assist.budget={calls: 5, money: 1.0}", "either calls or money"),
        ("assist.budget.calls=-1", "greater than or equal to 0"),
        ("ask.palm.samples=21", "a row takes 21"),
        ("assist.warm_up=1.5", "less than or equal to 1"),
        ("assist.acquire={consistency: 0.0, student: 0.0}", "both 0"),
        ("assist.trust={by: weight, below: 0.5}", "are of filter"),
        ("assist.trust={by: gold}\ntask.gold=null", "task.gold"),
        ("assist.teacher=nobody", "teachers has"),
        ("assist.confidence.by=likelihood", "must run on vllm"),
        ("assist.teacher=palm", "no scores of words"),
        ("task.labels=gold", "assist.trust says what counts"),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(folder, setting, said):
    with pytest.raises(UseError) as told:
        load_recipe(folder / "recipe.yaml", recipe_model, settings=setting.split("\n"))
    assert said in str(told.value)


def test_stages_that_nobody_needs_are_not_laid_out(folder):
    def names(*sets):
        loaded = load_recipe(folder / "recipe.yaml", recipe_model, settings=list(sets))
        return [stage.name for stage in lay_out(loaded)]

    whole = ["inputs", "draw", "ask-warm-up", "teach-warm-up", "warm-up-writer", "sample"]
    whole += ["assess-student", "acquire", "ask", "assess-teacher", "teach", "train-writer"]
    signals = "assist.acquire={by: signals}"
    assert names("assist.warm_up=0.25", signals) == whole
    drawn = {"draw", "ask-warm-up", "teach-warm-up", "warm-up-writer"}
    assert names(signals) == [name for name in whole if name not in drawn]
    after = {"sample", "assess-student", "acquire", "ask"}
    assert names("assist.warm_up=1.0", signals) == [name for name in whole if name not in after]
    alone = names("assist.acquire={by: signals, student: 0.0}", "assist.trust={by: everything}")
    assert alone == ["inputs", "sample", "acquire", "ask", "teach", "train-writer"]


class Assistant:
    """What an engine answers, without an engine."""

    teacher = "aide"

    def __init__(self, logprobs=(), error=""):
        self.logprobs, self.error, self.asked = list(logprobs), error, []

    async def score_labels(self, prompt, labels):
        self.asked.append((prompt, labels))
        return LabelScores(self.logprobs, error=self.error, reason="too-long")

    async def score_text(self, prompt, text):
        self.asked.append((prompt, text))
        return SequenceScore(self.logprobs, error=self.error)


def assessed(engine, by="p_true", rationale="It is wet."):
    task = AnswerTask(kind="choices", choices=PLACES, prompt="{{ question }}")
    user = "{{ asked }} {{ answer }}: {{ rationale }}"
    work = AssessAnswer(engine, Questions(task), user, "Judge.", by, (" yes", " no"))
    row = {"id": "1" * 32, "item": "2" * 32, "fields": '{"question": "Where?"}'}
    said = {"answer": "dam", "rationale": rationale, "right": True}
    return asyncio.run(work({**row, **said}))


def test_an_answer_is_assessed_by_words_or_by_its_likelihood():
    engine = Assistant([math.log(0.3), math.log(0.1)])
    assert assessed(engine)["confidence"] == pytest.approx(0.75)
    assert engine.asked == [("Judge.\n\nWhere? dam: It is wet.", [" yes", " no"])]
    engine = Assistant([math.log(0.5), math.log(0.125)])
    assert assessed(engine, "likelihood", None)["confidence"] == pytest.approx(0.25)
    assert engine.asked == [("Judge.\n\nWhere? dam: ", " dam")]


@pytest.mark.parametrize("by", ["p_true", "likelihood"])
def test_an_answer_without_a_confidence_is_rejected(by):
    nothing = assessed(Assistant([NO_NUMBER, NO_NUMBER]), by)
    assert isinstance(nothing, Rejection)
    assert nothing.reason == "no-confidence"
    cut = assessed(Assistant([], "the prompt has 9000 tokens"), by)
    assert isinstance(cut, Rejection)
    assert cut.reason == "too-long"


def context_of(folder, settings, **stages):
    """A stage's context, with finished stages of given rows."""
    place = Run(Folder(str(folder / "run")))

    def finished(name, schema, rows):
        stage = place.stage(name, content_id(name))
        table = pa.Table.from_pylist(rows, schema=schema)
        stage.commit_shard("rows", table, rejected_table(name, []))
        stage.commit(Manifest(name, "f", {}, ["rows"], len(rows), {}))
        return stage

    (folder / "prices.yaml").write_text(
        "currency: USD\ntokens: {palm-540b: "
        "{input_per_million: 1000.0, output_per_million: 2000.0, source: a test}}\n"
    )
    sets = ["prices=prices.yaml"]
    recipe = load_recipe(folder / "recipe.yaml", recipe_model, settings=sets).recipe
    return StageContext(
        stage=place.stage("acquire", "w" * 12),
        recipe=LoadedRecipe(recipe, folder),
        settings=settings,
        inputs={role: finished(role, *rows) for role, rows in stages.items()},
        engine=lambda _: None,
        model=lambda name: name,
        fingerprint="f",
        attempt="a",
        write_entry=lambda _: None,
        show=lambda _: None,
        over_budget=lambda _: None,
        logs=folder,
    )


def call(**changed):
    said = {"teacher": "palm", "user": "{{ question }}", "system": "", "max_tokens": 10}
    return {**said, "samples": 1, **changed}


def row_of(n):
    fields = json.dumps({"question": f"Where {n}?"})
    return {"id": f"{n:032x}", "fields": fields}


def sampled(n, consistency, answer="dam", right=None):
    texts = {"texts": ["dam"], "answer": answer, "consistency": consistency, "right": right}
    return {**row_of(n), **texts, "tokens_in": 1, "tokens_out": 1}


def sure(n, confidence):
    nothing = {"requests": 1, "tokens_in": 1, "tokens_cached": 0, "tokens_out": 1}
    said = {"teacher": "aide", "answer": "dam", "rationale": None, "right": None}
    return {
        "id": f"{n + 100:032x}",
        "item": f"{n:032x}",
        "confidence": confidence,
        "usage": nothing,
        **said,
    }


def test_the_rows_of_which_least_is_trusted_are_acquired(folder):
    rows = [
        sampled(0, 1.0, right=True),  # u = .5*0 + .5*.1 = .05
        sampled(1, 0.5, right=False),  # .5*.5 + .5*.9 = .7
        sampled(2, 0.25, right=True),  # .5*.75 + .5*.2 = .475
        sampled(3, 0.0, answer=None, right=False),  # no answer at all: 1
        sampled(4, 0.125),  # nobody could assess it
        sampled(5, 0.5, right=False),  # .5*.5 + .5*.5 = .5
    ]
    assessments = [sure(0, 0.9), sure(1, 0.1), sure(2, 0.8), sure(5, 0.5)]
    settings = {"by": "signals", "consistency": 0.5, "student": 0.5, "seed": 0}
    settings |= {"call": call(), "calls": 3, "money": None}

    def acquired(**changed):
        inputs = {"sampled": (SAMPLED, rows), "assessed": (ASSESSED, assessments)}
        context = context_of(folder, {**settings, **changed}, **inputs)
        result = acquire(context)
        table = context.stage.rows.read_table("rows.parquet")
        assert table.schema.equals(INPUT)
        return [int(row["id"], 16) for row in table.to_pylist()], result

    found, result = acquired()
    assert found == [3, 1, 5]
    assert result.facts["candidates"] == 5
    signals = result.facts["signals"]
    # Right: 1.0, .25; wrong: .5, 0, .5. Three of the six pairs are 1.0 above, one .25 above 0.
    assert signals["consistency"]["auroc"] == pytest.approx(4 / 6)
    assert signals["student"] == {"answers": 4, "right": 2, "mean": 0.575, "auroc": 1.0} | {
        "mean": pytest.approx(0.575)
    }
    # By its own doubts alone, also the row that nobody assessed is one.
    assert acquired(student=0.0)[0] == [3, 4, 2]
    assert acquired(consistency=0.0, calls=2)[0] == [3, 1]
    # Without a warm-up nobody knows what a call costs: at most .092 with 10 tokens out.
    assert acquired(calls=None, money=0.2)[0] == [3, 1]
    more, result = acquired(calls=50)
    assert len(more) == 5
    assert result.facts["wanted"] == 50


def usage(n, tokens_in, tokens_out):
    said = {"requests": 1, "tokens_in": tokens_in, "tokens_cached": 0, "tokens_out": tokens_out}
    row = {"id": f"{n:032x}", "item": f"{n:032x}", "teacher": "palm", "sample": 0, "text": "x"}
    return {**row, "finish": "stop", "usage": said}


def test_money_buys_by_what_calls_have_cost(folder):
    settings = {"by": "random", "consistency": 0.5, "student": 0.5, "seed": 0, "call": call()}
    rows = [row_of(n) for n in range(30)]

    def acquired(money, answers):
        inputs = {
            "rows": (INPUT, rows),
            "taught": (INPUT, rows[: len(answers)]),
            "answers": (ANSWERED, answers),
        }
        context = context_of(folder, {**settings, "calls": None, "money": money}, **inputs)
        result = acquire(context)
        assert result.rows == context.stage.rows.row_count("rows.parquet")
        return result.rows

    # 10 tokens in at .001 and 20 out at .002 are .05; 30 and 10 are as much.
    answers = [usage(0, 10, 20), usage(1, 30, 10)]
    assert acquired(1.0, answers) == 18
    assert acquired(0.124, answers) == 0
    with pytest.raises(UseError, match="nobody has counted the tokens"):
        acquired(1.0, [usage(0, None, None)])


def test_money_draws_by_the_dearest_call_while_none_is_answered(folder):
    asked = Asked("Think.", ["Where?"])
    assert dearest(asked, 50, PRICE) == pytest.approx((12 + 64 + 2 * 50) / 1e6)
    rows = [row_of(n) for n in range(30)]
    # A question has 8 bytes or 9: it costs .092 or .093 at most with 10 tokens out.
    settings = {"call": call(), "calls": None, "money": 2.0, "share": 0.25, "seed": 0}
    context = context_of(folder, settings, inputs=(INPUT, rows))
    assert draw_warm_up(context).rows == 5
    twice = {**settings, "call": call(samples=2)}
    assert draw_warm_up(context_of(folder, twice, inputs=(INPUT, rows))).rows == 2
    with pytest.raises(WorkError, match="not one row"):
        draw_warm_up(context_of(folder, {**settings, "money": 0.01}, inputs=(INPUT, rows)))
    unpriced = {**settings, "call": call(teacher="aide")}
    with pytest.raises(StillhouseError, match="no price for a token of aide"):
        draw_warm_up(context_of(folder, unpriced, inputs=(INPUT, rows)))


def test_a_share_of_the_calls_is_drawn():
    assert rows_of_warm_up(calls=200, samples=1, share=0.25) == 50
    assert rows_of_warm_up(calls=201, samples=2, share=0.1) == 10
    assert rows_of_warm_up(calls=10, samples=1, share=0.3) == 3
    assert rows_of_warm_up(calls=3, samples=1, share=0.1) == 1, "a warm-up is of something"
    assert rows_of_warm_up(calls=200, samples=1, share=0.0) == 0
    assert rows_of_warm_up(calls=200, samples=1, share=1.0) == 200


RECIPES = Path(__file__).parents[2] / "recipes"
CQA = [f"cqa_palm/{name}.jsonl" for name in ("train", "test", "palm_train")]
PROFILES = [
    ("teaching_assistant", None, 11),
    ("assistant_signals", None, 3),
    ("assistant_signals", "signals", 6),
    ("assistant_signals", "design", 8),
    ("assistant_signals", "full", 11),
]


@pytest.mark.parametrize(("name", "profile", "number"), PROFILES)
def test_every_variant_of_the_recipes_is_possible(tmp_path, name, profile, number):
    shutil.copytree(RECIPES, tmp_path, dirs_exist_ok=True)
    for brought in CQA:
        (tmp_path / brought).touch()
    file = tmp_path / f"{name}.yaml"
    base = load_recipe(file, recipe_model, profile)
    variants = base.training_recipe.ablate.variants
    assert len(variants) == number
    seen = [lay_out(base)]
    for changes in variants.values():
        loaded = load_recipe(file, recipe_model, profile, variant=changes)
        layout = lay_out(loaded)
        (student,) = loaded.training_recipe.students
        assert layout[-1].predicts == student
        # A smaller assistant is told by its revision alone.
        assert layout not in seen or set(changes) == {"teachers.assistant.model"}
        seen.append(layout)


@pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with data")
def test_of_what_palm_answered_a_quarter_is_wrong(tmp_path):
    """The recipe of the signals on the recorded teacher: what gold would leave out."""
    shutil.copytree(RECIPES / "cqa_palm", tmp_path / "cqa_palm")
    prepare = runpy.run_path(str(RECIPES / "cqa_palm" / "prepare.py"))["prepare"]
    prepare(Path(SHARED or "") / "data" / "cqa_palm540b", tmp_path / "cqa_palm")
    text = (RECIPES / "assistant_signals.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(text)
    alone = ["assist.warm_up=0.0", "assist.acquire.by=random", "assist.trust={by: gold}"]
    run(tmp_path, *alone)
    manifest = stage_of(tmp_path, "teach").manifest()
    before, after = manifest.facts["before"], manifest.facts["after"]
    assert stage_of(tmp_path, "ask").manifest().rows == 300
    assert before["labels"] > 290
    assert 0.69 < before["precision"] < 0.79
    assert after["precision"] == 1.0
    assert manifest.rows == after["labels"]
    assert manifest.rejected["wrong"] == before["labels"] - after["labels"]
