"""Judges: what they write is read, ratings are averaged with their spread, biases come out."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import UseError
from core.recipe_file import load_recipe
from core.recipe_prompts import as_prompt
from core.rows import COMPARED, RATED, WRITTEN
from core.run import Folder, Manifest, Run
from pipelines.asked_texts import fill_in
from pipelines.judge_words import Rating, read_criteria, read_rating, read_verdict
from pipelines.prompt_library import read_template
from pipelines.row_work import rejected_table
from stillhouse.gather_judges import bias, preferences, ratings
from stillhouse.judging import COMPLEXITY
from stillhouse.methods import recipe_model
from stillhouse.workflow import plan_run
from tests.commands import command
from tests.unit.test_recorded import stage_of, write_lines

SHARED = os.environ.get("STILLHOUSE_SHARED")
REAL = pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with data")
SCALE = (1.0, 5.0)
HHH, BRIEF, PAIR = (
    read_template(f"judge/{name}")[1].answer for name in ("hhh", "hhh_brief", "pair")
)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("It helps.\nRating: 4", 4),
        ("**Rating:** 4.5 out of 5", 4.5),
        ("Rating: [[5]]", 5),
        ("Rating: 2. No, on reflection:\nRating: 3", 3),
        ("rating : 1", 1),
        ("Rating: 7", None),
        ("Rating: -3", None),
        ("Rating: good", None),
        ("4", None),
        ("", None),
    ],
)
def test_a_rating_is_the_last_that_the_judge_gives(text, rating):
    found = read_rating(text, HHH, SCALE)
    assert (found.value if isinstance(found, Rating) else None) == rating


@pytest.mark.parametrize(("text", "rating"), [("4", 4), ("4/5? No: 3", 3), ("9", None), ("", None)])
def test_a_brief_judge_writes_the_rating_alone(text, rating):
    found = read_rating(text, BRIEF, SCALE)
    assert (found.value if isinstance(found, Rating) else None) == rating


SOUND = dict.fromkeys(COMPLEXITY, 2) | {"overall": 3}


@pytest.mark.parametrize(
    ("text", "overall"),
    [
        (json.dumps(SOUND), 3),
        (f"Of course {{sic}}:\n```json\n{json.dumps(SOUND, indent=1)}\n```", 3),
        (json.dumps({**SOUND, "overall": "4"}), 4),
        (json.dumps({**SOUND, "overall": 6}), None),
        (json.dumps({**SOUND, "precision": 0}), None),
        (json.dumps({**SOUND, "precision": None}), None),
        (json.dumps({**SOUND, "precision": True}), None),
        (json.dumps({key: SOUND[key] for key in COMPLEXITY}), None),
        (json.dumps(SOUND)[:-2], None),
        ("{" * 9_000, None),
        ('{"overall": NaN}', None),
    ],
)
def test_ratings_by_criteria_are_a_json_object(text, overall):
    found = read_criteria(text, COMPLEXITY, SCALE)
    assert (found.value if isinstance(found, Rating) else None) == overall
    if isinstance(found, Rating):
        assert set(found.criteria) == set(COMPLEXITY)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A is short.\nVerdict: B", "second"),
        ("**Verdict:** [[A]]", "first"),
        ("Verdict: C.", "tie"),
        ("Verdict: A. Or rather\nverdict: c", "tie"),
        ("Verdict: Both", None),
        ("A", None),
    ],
)
def test_a_verdict_is_a_letter(text, verdict):
    assert read_verdict(text, PAIR) == verdict


@pytest.mark.parametrize("name", ["hhh", "hhh_brief", "hhh_faults"])
def test_the_first_turn_of_a_conversation_has_no_history_in_the_prompt(name):
    prompt = read_template(f"judge/{name}")[1]
    fields = {"question": "And you?", "response": "Fine.", "history": []}
    first = fill_in(prompt.text, prompt.system, fields).turns[0]
    said = [{"user": "How are you?", "reply": "Well."}]
    later = fill_in(prompt.text, prompt.system, {**fields, "history": said}).turns[0]
    assert "onversation" not in first.replace("Conversation with", "")
    assert first.startswith(("User: And you?", "[What the user says]"))
    assert later.endswith(first)
    assert "User: How are you?\nAssistant: Well.\n" in later


@REAL
def test_ratings_and_verdicts_are_found_behind_real_texts():
    """GPT-4's replies to MT-Bench as a judge's reasons, which are full of numbers and letters."""
    folder = Path(SHARED) / "data" / "judge"
    lines = (folder / "reference_gpt-4.jsonl").read_text().splitlines()
    texts = [turn for line in lines for turn in json.loads(line)["choices"][0]["turns"]]
    assert len(texts) >= 60
    for number, text in enumerate(texts):
        value = 1 + number % 5
        assert read_rating(f"{text}\nRating: {value}", HHH, SCALE) == Rating(value, {})
        assert read_rating(f"{text}\n\n{value}", BRIEF, SCALE) == Rating(value, {})
        assert (
            read_verdict(f"{text}\nVerdict: {'ABC'[number % 3]}", PAIR)
            == (
                "first",
                "second",
                "tie",
            )[number % 3]
        )
        found = read_criteria(
            f"{text}\n{json.dumps({**SOUND, 'overall': value})}", COMPLEXITY, SCALE
        )
        assert found.value == value
    # The forms in which MT-Bench's own judges are asked to answer.
    formats = {
        json.loads(line)["output_format"]
        for line in (folder / "judge_prompts.jsonl").read_text().splitlines()
    }
    assert formats == {"[[A]]", "[[rating]]"}
    assert read_verdict("A, since [[B]] is too long. [[A]]", None) == "first"


def test_five_hundred_malformed_words_of_judges_are_counted():
    random_ = random.Random(0)
    parts = ["Rating:", "4", "[[", "]]", "Verdict: D", "\n", "9" * 400, "-1", "{", '"overall": 3']
    parts += ["\x00", "\ud800", "**", "4.5.6", "\u0664", json.dumps(SOUND)[:40], "NaN", "1e9"]
    counts = {"rating": 0, "none": 0}
    for _ in range(500):
        text = " ".join(random_.choices(parts, k=random_.randint(0, 9)))
        for found in (
            read_rating(text, HHH, SCALE),
            read_rating(text, BRIEF, SCALE),
            read_criteria(text, COMPLEXITY, SCALE),
        ):
            counts["rating" if isinstance(found, Rating) else "none"] += 1
            if isinstance(found, Rating):
                assert 1 <= found.value <= 5
        assert read_verdict(text, PAIR) in (None, "first", "second", "tie")
    assert sum(counts.values()) == 1500
    assert counts["none"] > 500
    assert counts["rating"] > 50


def rated(model, item, rating, prompt="hhh", *, turn=0, words=10):
    return {
        "item": item,
        "model": model,
        "turn": turn,
        "prompt": prompt,
        "rating": rating,
        "words": words,
    }


def test_a_rating_is_the_mean_over_prompts_and_replies_with_the_spread_over_prompts():
    rows = [rated("a", "x", 4), rated("a", "x", 2, turn=1), rated("a", "y", 3)]
    rows += [rated("a", "x", 5, "brief"), rated("a", "y", 5, "brief"), rated("b", "x", 1)]
    one, other = ratings(rows, SCALE)
    assert one.by_prompt == {"hhh": 3, "brief": 5}
    assert (one.mean, one.replies) == (4, 3)
    assert one.spread == pytest.approx(2**0.5)
    assert one.low < 4 < one.high
    assert (other.mean, other.spread, other.low) == (1, None, None)


def test_length_bias_is_told_within_a_turn():
    """Long replies to one question are rated higher, and long questions get lower ratings."""
    rows = []
    for item in range(6):
        for arm in range(3):
            words = 100 * item + 10 * arm
            rows.append(rated(f"m{arm}", f"i{item}", 3 - item / 4 + arm / 2, words=words))
    found = bias(rows, [])
    assert found.length == pytest.approx(1.0)
    assert found.length_overall < 0
    assert (found.pairs, found.first, found.longer) == (0, None, None)
    assert bias([rated("a", "x", 3)], []).length is None


def compared(item, first, second, verdict, words=(1, 2)):
    return {
        "item": item,
        "first": first,
        "second": second,
        "verdict": verdict,
        "words_first": words[0],
        "words_second": words[1],
    }


def test_position_bias_and_wins_that_both_orders_agree_on():
    verdicts = [
        compared("x", "a", "b", "first"),
        compared("x", "b", "a", "second", (2, 1)),  # a both times
        compared("y", "a", "b", "first"),
        compared("y", "b", "a", "first", (2, 1)),  # whoever stands first
        compared("z", "a", "b", "tie"),
        compared("z", "b", "a", "tie"),
        compared("w", "a", "b", "second"),  # the other order was not read
    ]
    found = bias([], verdicts)
    assert (found.pairs, found.consistent) == (3, pytest.approx(2 / 3))
    assert found.first == 3 / 5
    assert found.longer == 2 / 5
    (pair,) = preferences(verdicts)
    assert (pair.one, pair.other, pair.wins, pair.losses, pair.undecided) == ("a", "b", 1, 0, 2)


RECIPE = """\
name: talk
method: frontier
inputs: {file: talk.jsonl}
evaluation: {file: talk.jsonl}
teachers:
  big: {backend: recorded, model: big, files: [big.jsonl]}
  gpt: {backend: recorded, model: gpt, files: [gpt.jsonl]}
ask: {big: {prompt: {library: assistant}}}
task: {kind: chat}
arms: {undistilled: true}
judges:
  hhh: {teacher: gpt, pairs: true}
students: {small: {family: causal, model: embedded://smollm2-135m-instruct}}
"""
TALKS = [["Hello?", "And you?"], ["What is a dam?"], ["Why?", "Why not?", "So?"]]


@pytest.fixture
def talk(tmp_path):
    write_lines(tmp_path / "talk.jsonl", [{"turns": turns} for turns in TALKS])
    records = [
        {"prompt": "\n".join(turns[: n + 1]), "text": f"Reply to {turn}"}
        for turns in TALKS
        for n, turn in enumerate(turns)
    ]
    write_lines(tmp_path / "big.jsonl", records)
    (tmp_path / "gpt.jsonl").touch()
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_each_reply_is_learnt_behind_the_teachers_own_replies(talk):
    done = command(talk, "run", "recipe.yaml", "--run", "run", "--until", "extract-text")
    assert done.returncode == 0, done.stderr
    rows = stage_of(talk, "extract-text").read().to_pylist()
    assert len(rows) == 6
    assert [message["content"] for message in rows[-1]["messages"]] == [
        *("Why?", "Reply to Why?", "Why not?", "Reply to Why not?", "So?"),
    ]
    assert [message["role"] for message in rows[-1]["messages"]] == ["user", "assistant"] * 2 + [
        "user"
    ]
    # The student is asked plainly: the system text of the teacher's prompt is not in it.
    assert rows[-1]["answer"] == "Reply to So?"
    answers = stage_of(talk, "ask").read().to_pylist()
    assert [row["replies"] for row in answers] == [[f"Reply to {t}" for t in ts] for ts in TALKS]
    assert [row["text"] for row in answers] == [f"Reply to {turns[-1]}" for turns in TALKS]
    assert answers[2]["usage"]["requests"] == 3


def test_a_turn_that_is_not_answered_rejects_the_conversation_and_says_which(talk):
    lines = (talk / "big.jsonl").read_text().splitlines()
    (talk / "big.jsonl").write_text("\n".join(line for line in lines if "So?" not in line) + "\n")
    done = command(talk, "run", "recipe.yaml", "--run", "run", "--until", "extract-text")
    assert done.returncode == 0, done.stderr
    (rejected,) = stage_of(talk, "ask").read_rejected().to_pylist()
    assert rejected["reason"] == "not-recorded"
    assert rejected["detail"].endswith("in turn 3 of 3")


JUDGED = {"accuracy": {}, "unparsed": {}, "unanswered": {}}


def given(plan, name, rows=None, facts=JUDGED):
    """A stage that is done, with rows that it did not make itself."""
    stage, made = plan.folder(name), plan.fingerprints[name]
    keys = []
    if rows is not None:
        table = pa.Table.from_pylist(rows, schema=WRITTEN)
        stage.commit_shard("rows", table, rejected_table(name, []))
        keys = ["rows"]
    stage.commit(Manifest(name, made.whole, made.made_from, keys, 1, {}, facts))


def judge_file(folder, plan, arms):
    """What the judge says: the longer the better, and who stands first where both are equal."""
    recipe, records = plan.loaded.recipe, []
    judge = recipe.judges["hhh"]
    for turns in TALKS:
        said = {
            a: [{"user": t, "reply": form.format(t)} for t in turns] for a, form in arms.items()
        }
        for exchanges in said.values():
            for n, exchange in enumerate(exchanges):
                fields = {"question": exchange["user"], "response": exchange["reply"]}
                fields |= {"history": exchanges[:n]}
                for name, prompt in judge.prompts.items():
                    asked = fill_in(as_prompt(prompt).text, "", fields).turns[0]
                    value = min(5, len(exchange["reply"].split())) - (name == "hhh_faults")
                    text = str(value) if name == "hhh_brief" else f"Well.\nRating: {value}"
                    if name == "hhh" and turns[0] == "What is a dam?":
                        text = "I cannot say."
                    records.append({"prompt": asked, "text": text})
        for one, other in judge_pairs(plan):
            for first, second in ((one, other), (other, one)):
                fields = {"first": said[first], "second": said[second]}
                asked = fill_in(as_prompt(judge.pair_prompt).text, "", fields).turns[0]
                longer = [sum(len(e["reply"].split()) for e in said[m]) for m in (first, second)]
                letter = "A" if longer[0] >= longer[1] else "B"
                records.append({"prompt": asked, "text": f"Verdict: {letter}"})
    write_lines(folder / "gpt.jsonl", list({r["prompt"]: r for r in records}.values()))


def judge_pairs(plan):
    return next(s for s in plan.stages if s.name == "prefer-hhh").settings["pairs"]


ARMS = {
    "small": "Reply to {}",
    "small, undistilled": "{}",
    "big": "Reply to {}",
}


@pytest.fixture
def answered(talk):
    """All arms have answered; only judges are left."""
    run = Run(Folder(str(talk / "run")))
    plan = plan_run(load_recipe(talk / "recipe.yaml", recipe_model), run)
    judge_file(talk, plan, ARMS)
    plan = plan_run(load_recipe(talk / "recipe.yaml", recipe_model), run)
    done = command(talk, "run", "recipe.yaml", "--run", "run", "--until", "predict-teachers")
    assert done.returncode == 0, done.stderr
    ids = {
        tuple(row["turns"]): row["id"]
        for row in stage_of(talk, "predict-teachers").read().to_pylist()
    }
    given(plan, "extract-text", facts={"answers": 3, "read": 3, "outvoted": 0})
    given(plan, "train-small")
    for stage, arm in (
        ("predict-small", "small"),
        ("predict-small-undistilled", "small, undistilled"),
    ):
        rows = [
            {
                "id": ids[tuple(turns)],
                "model": arm,
                "question": "\n\n".join(turns),
                "text": ARMS[arm].format(turns[-1]),
                "turns": turns,
                "replies": [ARMS[arm].format(turn) for turn in turns],
                "predicted": ARMS[arm].format(turns[-1]),
            }
            for turns in TALKS
        ]
        given(plan, stage, rows)
    return talk


def test_judges_rate_all_arms_and_their_biases_stand_in_the_report(answered):
    talk = answered
    for stage in ("rate-hhh", "prefer-hhh"):
        done = command(talk, "run", "recipe.yaml", "--run", "run", "--until", stage)
        assert done.returncode == 0, done.stderr
    found = stage_of(talk, "rate-hhh")
    assert found.read().schema.equals(RATED)
    # Six turns, three arms, three prompts. One prompt has no rating of the one dam; another has 0
    # for replies of one word, which is below the scale.
    assert found.manifest().rows == 6 * 3 * 3 - 6
    assert found.manifest().rejected == {"unparsed": 6}
    later = [row for row in found.read().to_pylist() if row["turn"]]
    assert len(later) == 3 * 3 * 3 - 1
    assert stage_of(talk, "prefer-hhh").read().schema.equals(COMPARED)
    report = json.loads((talk / "run" / "report.json").read_text())
    (judge,) = report["judges"]
    assert {one["arm"] for one in judge["rated"]} == set(ARMS)
    assert judge["unparsed"] == 6
    by_arm = {one["arm"]: one for one in judge["rated"]}
    assert by_arm["small"]["mean"] == by_arm["big"]["mean"] > by_arm["small, undistilled"]["mean"]
    assert by_arm["small"]["spread"] > 0
    assert judge["bias"]["length"] > 0.5
    assert judge["bias"]["longer"] == 1.0
    pairs = {(p["one"], p["other"]): (p["wins"], p["undecided"]) for p in judge["preferred"]}
    # Equal replies are decided by the place: the orders disagree.
    assert pairs == {("small", "small, undistilled"): (3, 0), ("small", "big"): (0, 3)}
    assert judge["bias"]["first"] > 0.5
    (table,) = report["arms"]
    assert table["measure"] == "judge"
    assert table["rows"][0]["scores"]["small"]["value"] == pytest.approx(by_arm["small"]["mean"])
    page = (talk / "run" / "report.html").read_text()
    assert "It prefers who stands first in" in page
    beside = report["side_by_side"]
    assert beside["total"] == 3
    first = beside["rows"][0]
    assert first["turns"] == TALKS[0]
    assert [one["arm"] for one in first["arms"]] == ["big", "small, undistilled", "small"]
    assert first["arms"][2]["replies"] == ["Reply to Hello?", "Reply to And you?"]
    assert first["arms"][2]["score"] > first["arms"][1]["score"]
    assert "Answers side by side" in page
    assert "6 texts of the judge held no rating" in page


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["judges={}"], "the metric of task is what judges say"),
        (["judges.hhh.teacher=nobody"], "judges.hhh.teacher is 'nobody'"),
        (["judges.hhh.scale=[5.0, 1.0]"], "not above"),
        (["judges.hhh.criteria=[x]"], "criteria are of questions"),
        (["judges.hhh.rates=questions"], "pairs are of answers"),
        (["judges.hhh.datasets=[gone]"], "judges.hhh.datasets has 'gone'"),
        (["judges.hhh.prompts={mine: {library: gone}}"], "no template 'judge/gone'"),
        (["judges.hhh.prompts={mine: '{{ x'}"], "is not Jinja"),
    ],
)
def test_what_a_judge_cannot_be(talk, settings, said):
    with pytest.raises(UseError) as caught:
        load_recipe(talk / "recipe.yaml", recipe_model, None, settings)
    assert said in str(caught.value)
