"""The report on teacher data: the same demands on its page, and figures worked out by hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from core.identity import content_id
from core.ledger import Entry, Ledger
from core.recipe import LoadedRecipe
from core.rows import ANSWERED, INPUT
from core.run import Folder, Manifest, Run
from pipelines.row_work import Rejection, rejected_table
from stillhouse.gather_teacher_data import gather_teacher_data
from stillhouse.methods.teacher_data import TeacherDataRecipe
from stillhouse.report import data as d
from stillhouse.report import teacher_data as t
from stillhouse.report.answered import answered
from stillhouse.report.intervals import paired_difference
from stillhouse.report.teacher_data_page import render_teacher_data
from stillhouse.report.wording import signed_points
from stillhouse.workflow import Workflow, plan_run
from tests.unit.test_report import (
    HOSTILE,
    Page,
    realistic,
    test_headings_are_in_order_and_figures_have_words,
    test_ids_are_unique_and_links_lead_somewhere,
    test_the_page_is_one_tree_and_needs_nothing_from_elsewhere,
    with_text,
)

__all__ = [
    "test_headings_are_in_order_and_figures_have_words",
    "test_ids_are_unique_and_links_lead_somewhere",
    "test_the_page_is_one_tree_and_needs_nothing_from_elsewhere",
]


def full() -> t.TeacherDataReport:
    """Two teachers, of which one is an endpoint; the figures are invented for the test."""
    used = Entry(
        "total",
        "",
        "",
        requests=500,
        tokens_in=40_000,
        tokens_cached=30_000,
        tokens_out=9_000,
        rows=490,
        startup_seconds=60,
        useful_seconds=180,
        idle_seconds=60,
        wall_seconds=200,
    )
    engine = t.TeacherWork(
        name="near",
        model="embedded://small",
        samples=2,
        asked=500,
        answered=490,
        rejected={"empty": 8, "poison": 2},
        finishes={"stop": 441, "length": 49},
        used=used,
        device="cpu-core",
        place="2 cpu-core an engine",
        devices=2.0,
        money=0.5,
        lengths=t.Lengths(d.Histogram([-0.5, 9.5, 19.5, 29.5], [90, 300, 100]), 14, 22, 29),
        logits=t.Logits(9_000, 72_000, 180_000, 468_000),
    )
    endpoint = replace(
        engine,
        name="far",
        model="large",
        used=replace(used, startup_seconds=0, useful_seconds=0, idle_seconds=0),
        device="",
        place="endpoint",
        devices=0.0,
        money=1.5,
        logits=None,
    )
    rows = [
        t.AskedRow(
            f"{n:012}",
            {"question": f"What is {n}?", "topic": "numbers"},
            [
                t.Asked("near", f"Q: {n}", [t.AnswerText(0, f"It is {n}", "stop", 4)], []),
                t.Asked("far", None, [], ["empty: the teacher wrote nothing"] * (n % 3 == 0)),
            ],
        )
        for n in range(100)
    ]
    rejected = [
        d.RejectedRow(f"{n:012}", "ask", "empty", "the teacher wrote nothing", "{}", "far")
        for n in range(20)
    ]
    return t.TeacherDataReport(
        name="two-voices",
        method="teacher_data",
        warnings=[],
        currency="USD",
        prices=[d.Price("cpu-core, hour", 0.05, "the contract")],
        steps=[t.InputStep("inputs", 260, {"not-json": 3}), t.InputStep("curate", 250, {})],
        teachers=[engine, endpoint],
        total=used,
        money=2.0,
        rejected=d.Samples(23, rejected),
        rows=d.Samples(250, rows),
        provenance=realistic().provenance,
    )


def with_students() -> t.TeacherDataReport:
    """The same, from which an encoder and a model that writes have learnt."""
    data = full()
    teacher = t.Judged("near", "teacher", d.Score.of(160, 200), 12, 0)
    paired = d.Paired(both=120, only_student=10, only_teacher=40, neither=30)
    chooser = t.Judged("minilm", "student", d.Score.of(130, 200), None, 0, "near", paired)
    return replace(
        data,
        later=[t.InputStep("extract", 470, {"unparsed": 15, "outside-choices": 5})],
        training_rows=[t.TrainingRows("extract", "teacher", 490, 470, 7, 440, {"unparsed": 15})],
        trainings=[t.StudentTraining("minilm", "embedded://mini", 396, data.total, 0.25)],
        judged=[
            teacher,
            t.Judged("far", "teacher", d.Score.of(100, 190), 0, 10),
            chooser,
            replace(chooser, name="t5", unparsed=3),
        ],
    )


def alone() -> t.TeacherDataReport:
    """A student that learnt gold labels: no teacher was asked."""
    data = replace(with_students(), teachers=[], rows=d.Samples(0, []), prices=[])
    student = replace(data.judged[2], beside=None, paired=None)
    return replace(data, total=Entry("total", "", ""), judged=[student])


def nothing_yet() -> t.TeacherDataReport:
    data = full()
    nobody = [
        replace(
            one,
            asked=None,
            answered=0,
            rejected={},
            finishes={},
            used=Entry("total", "", ""),
            money=None,
            lengths=None,
            logits=None,
        )
        for one in data.teachers
    ]
    return replace(
        data,
        prices=[],
        steps=[],
        teachers=nobody,
        total=Entry("total", "", ""),
        money=None,
        rejected=d.Samples(0, []),
        rows=d.Samples(0, []),
        warnings=["The run is not finished."],
    )


PAGES = {
    "full": full,
    "students": with_students,
    "gold": alone,
    "nothing yet": nothing_yet,
    "hostile": lambda: with_text(full(), HOSTILE),
    "hostile students": lambda: with_text(with_students(), HOSTILE),
}


@cache
def rendered(name: str) -> str:
    return render_teacher_data(PAGES[name]())


@pytest.fixture(params=list(PAGES))
def html(request) -> str:
    """Pages for the demands that every report meets, imported above."""
    return rendered(request.param)


def test_text_of_rows_stays_text():
    page = Page(rendered("hostile"))
    assert "<script>alert" in page.words
    assert not re.search("[\x00-\x08\x0e-\x1f\u202e\u2066\ud800]", page.words)


def test_long_texts_are_cut_and_the_page_can_still_be_mailed():
    text = (HOSTILE * 12_000)[: 1 << 20]
    html = render_teacher_data(with_text(full(), text, rows=3))
    assert "cut here; 1,048,576 characters in all" in html
    assert len(html.encode()) < 2_000_000


def test_known_figures_stand_on_the_page():
    words = Page(rendered("full")).words
    for told in (
        "2 teachers answered 980 of 1,000 questions for $2.00.",
        "Rejected: 20. Cut at the limit of tokens: 98 (10.0%).",
        # 180 device-seconds of two cores are 90 of one engine; an endpoint was asked for 200.
        "near embedded://small 490 10 49 40,000 75.0% 9,000 5.44 100 $0.50",
        "far large 490 10 49 40,000 75.0% 9,000 2.45 45.0 $1.50",
        "near 2 cpu-core an engine 500 60.0 180 60.0 $0.50 $1.02",
        "near 9,000 8.00 20.0 52.0 0.180",
        "300 60.0% of them at work",
        "empty ask near 8",
    ):
        assert told in words, told


def test_students_stand_beside_their_teacher():
    words = Page(rendered("students")).words
    # Newcombe's paired interval of (10 - 40) / 200, worked out as in test_report.
    gap, (low, high) = with_students().judged[2].gap
    assert (gap, paired_difference(120, 10, 40, 30)) == (-0.15, (low, high))
    assert low < gap < high < 0
    told_gap = f"\N{MINUS SIGN}15.0 {signed_points(low)} to {signed_points(high)}"
    for told in (
        "minilm answers 65.0% of 200 held-out questions right, its teacher near 80.0%.",
        "2 teachers answered 980 of 1,000 questions for $2.00.",
        "near teacher 80.0% 73.9 to 85.0 200 12",
        f"minilm student 65.0% 58.2 to 71.3 200 {told_gap}",
        f"t5 student 65.0% 58.2 to 71.3 200 3 {told_gap}",
        "far was asked about 10 rows in vain",
        "extract teacher 490 470 7 15 440",
        "minilm embedded://mini 396 300 $0.25",
        "outside-choices extract 5",
    ):
        assert told in words, told
    assert "Students" not in Page(rendered("full")).words


def test_without_a_teacher_there_is_nothing_to_stand_beside():
    words = Page(rendered("gold")).words
    assert "minilm answers 65.0% of 200 held-out questions right." in words
    assert "No teacher was asked about the rows that students learn from." in words


def test_nothing_known_is_told_as_unknown_and_never_as_zero():
    words = Page(rendered("nothing yet")).words
    assert "answered 0 of an unknown number of questions at a cost that is unknown" in words
    assert "Cost in all unknown" in words
    assert "$" not in words
    assert "0.0%" not in words


def test_the_list_can_be_held_to_rows_that_went_wrong():
    html = rendered("full")
    assert html.count('data-group="with a rejected answer"') > 20
    assert 'data-group="answered in full"' in html


TEACHERS = {
    "near": {"model": "{model}", "device": {"kind": "cpu-core", "cpus": 2.0}},
    "far": {"backend": "openai", "model": "large", "base_url": "http://nowhere/v1"},
}
PRICES = """\
currency: EUR
devices: {cpu-core: {per_hour: 3.6, source: the contract}}
tokens: {large: {input_per_million: 10.0, output_per_million: 100.0, source: the contract}}
"""
TOKENS = {"near": [1, 2, 2, 40], "far": [3, 3, 3, 5]}


def answer(teacher, item, tokens, ids=None, top=None):
    return {
        "id": content_id(teacher, item),
        "item": item,
        "teacher": teacher,
        "sample": 0,
        "text": f"{teacher} on {item}",
        "finish": "length" if tokens == 40 else "stop",
        "usage": {"requests": 1, "tokens_in": 10, "tokens_cached": 4, "tokens_out": tokens},
        "token_ids": ids,
        "top_ids": None if top is None else top[0].ravel(),
        "top_logprobs": None if top is None else top[1].ravel(),
    }


@pytest.fixture
def begun(tmp_path):
    """A run whose inputs are read, and the function that finishes `ask` with given rows."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "book.yaml").write_text(PRICES)
    near = {**TEACHERS["near"], "model": str(tmp_path / "model")}
    ask = {"prompt": "{{ question }}", "sampling": {"top_logprobs": 8}}
    recipe = {
        "name": "answers",
        "method": "teacher_data",
        "inputs": {"file": "rows.jsonl"},
        "teachers": {"near": near, "far": TEACHERS["far"]},
        "ask": {"near": ask, "far": {"prompt": "{{ gone }}"}},
        "prices": "book.yaml",
    }
    loaded = LoadedRecipe(TeacherDataRecipe.model_validate(recipe), tmp_path)
    run = Run(Folder(str(tmp_path / "run")))
    plan = plan_run(loaded, run)
    Workflow(plan, display=None, stages=plan.stages)._write_state()

    def finish(name, shards, rejected, schema):
        stage, made = plan.folder(name), plan.fingerprints[name]
        for key, rows in shards.items():
            table = pa.Table.from_pylist(rows, schema=schema)
            stage.commit_shard(key, table, rejected.get(key, rejected_table(name, [])))
        rows = sum(map(len, shards.values()))
        stage.commit(Manifest(name, made.whole, made.made_from, list(shards), rows, {}))
        return made.work

    fields = [{"id": f"item{n}", "fields": json.dumps({"question": f"q{n}"})} for n in range(4)]
    finish("inputs", {"0": fields}, {}, INPUT)
    return run, finish


def test_a_run_is_counted_by_teacher(begun):
    run, finish = begun
    shards = {
        name: [answer(name, f"item{n}", tokens) for n, tokens in enumerate(TOKENS[name])]
        for name in TOKENS
    }
    gone = shards["far"].pop()
    planned = {"id": gone["id"], "item": "item3", "sample": 0, "fields": "{}"}
    # A shard that has no answer at all still tells whose its rejected rows are.
    shards["empty"] = []
    rejected = rejected_table("ask", [(gone["id"], Rejection("empty", "nothing", planned))], "far")
    work = finish("ask", shards, {"empty": rejected}, ANSWERED)
    ledger = Ledger(run.ledger)
    ledger.write(Entry("ask", "a", "cpu-core", "m", "near", work, 4, 40, 10, 45, 4, 20, 60, 20, 50))
    ledger.write(Entry("ask", "a", "", "large", "far", work, 4, 40, 16, 11, 3, wall_seconds=30))
    ledger.write(Entry("ask", "b", "cpu-core", "m", "near", "old" * 8, useful_seconds=1000))
    data = gather_teacher_data(run)
    near, far = data.teachers
    assert (near.asked, near.answered, near.rejected) == (4, 4, {})
    assert (far.asked, far.answered, far.rejected) == (4, 3, {"empty": 1})
    assert (near.cut, far.cut) == (1, 0)
    assert (near.cached, far.cached) == (0.25, 0.4)
    # 60 device-seconds of two cores: 30 of one engine.
    assert (near.tokens_per_second, near.answers_per_second) == (1.5, pytest.approx(4 / 30))
    assert far.answers_per_second == 0.1
    assert near.money == pytest.approx(0.1)
    assert far.money == pytest.approx((40 * 10 + 11 * 100) / 1e6)
    assert data.money == pytest.approx(near.money + far.money)
    lengths = near.lengths
    assert (lengths.middle, lengths.ninety, lengths.longest) == (2, 40, 40)
    assert sum(lengths.histogram.counts) == 4
    for tokens in TOKENS["near"]:
        place = np.searchsorted(lengths.histogram.edges, tokens) - 1
        assert lengths.histogram.counts[place] > 0
    assert near.logits is None, "none are there, whatever the recipe says"
    last = data.rows.rows[-1]
    assert last.fields == {"question": "q3"}
    assert [one.teacher for one in last.asked] == ["near", "far"]
    assert last.asked[0].answers[0].text == "near on item3"
    assert last.asked[0].prompt == "q3"
    assert last.asked[1] == t.Asked("far", None, [], ["empty: nothing"])
    assert answered(data).sentence == "2 teachers answered 7 of 8 questions for €0.102."
    # The work of an earlier recipe is not in these figures, and the page says what it was.
    assert data.warnings == [
        "An earlier form of this recipe was worked on in this run; with it, the run has cost €1.10."
    ]
    render_teacher_data(data)


@pytest.mark.parametrize("kind", ["random", "equal"])
def test_bytes_of_the_likeliest_tokens_are_those_of_the_files(begun, kind):
    run, finish = begun
    random = np.random.default_rng(0)
    tokens, kept = 500, 8
    rows = []
    for n in range(40):
        ids = random.integers(0, 1 << 30, tokens).astype(np.int32)
        top = random.integers(0, 1 << 30, (tokens, kept)).astype(np.int32)
        logprobs = random.normal(-5, 3, (tokens, kept)).astype(np.float16)
        if kind == "equal":
            ids[:], top[:], logprobs[:] = 7, 7, 0.5
        rows.append(answer("near", f"item{n}", tokens, ids, (top, logprobs)))
    finish("ask", {"0": rows[:20], "1": rows[20:]}, {}, ANSWERED)
    logits = gather_teacher_data(run).teachers[0].logits
    assert logits.tokens == 40 * tokens
    assert logits.plain_per_token == 4 + 6 * kept
    places = run.finished_stages()["ask"].rows.local
    files = sum(path.stat().st_size for path in places.iterdir())
    assert 0 < logits.stored_bytes < files
    if kind == "random":  # nothing to compress: all of the files but the other columns
        assert logits.stored_bytes > 0.95 * files
        assert logits.stored_per_token > 0.9 * logits.plain_per_token
    else:
        assert logits.stored_per_token < 1
