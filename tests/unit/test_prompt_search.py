"""The search for a prompt: what is an instruction, and a whole search against a real endpoint."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from core.errors import UseError
from core.ledger import Ledger
from core.recipe_file import load_recipe
from core.rows import PROMPT_QUERY
from core.run import Folder, Run
from pipelines.instructions import Checks, key_of
from stillhouse.methods import lay_out, recipe_model
from stillhouse.stages import fingerprints
from tests.commands import command
from tests.endpoint_server import said, server
from tests.unit.test_recorded import stage_of, write_lines

__all__ = ["server"]

ROOT = Path(__file__).parents[2]
DESKS = ["business", "health", "sports"]
ROWS = 90

RECIPE = """\
name: desks
method: zero_shot
inputs: {{file: train.jsonl}}
teachers:
  big: {{backend: openai, model: big, base_url: '{url}', api: chat, max_concurrency: 4}}
ask:
  big:
    prompt: |-
      {{{{ instruction }}}}
      Headline: {{{{ question }}}}
    sampling: {{max_tokens: 8, temperature: 0}}
task:
  kind: choices
  choices: [business, health, sports]
  prompt: "{{{{ question }}}}"
  gold: answer
  answer: {{pattern: '(business|health|sports)'}}
optimize:
  optimizer: big
  start: ["Rule 10", "Rule 20"]
  rounds: 6
  candidates: 4
  keep: 3
  exemplars: 2
  scoring: 20
  validation: 30
  held_out: 30
  finalists: 2
  max_characters: 60
students:
  writer: {{family: causal, model: embedded://smollm2-135m-instruct}}
"""


def behave(number, body):
    """A teacher that follows rule 40 in 40% of the cases, and proposes rules that are better."""
    asked = body["messages"][-1]["content"]
    if "<INS>" in asked:
        best = max(int(rule) for rule in re.findall(r"<INS>[Rr]ule +(\d+)</INS>", asked))
        # In the fourth round nothing that can be tried is proposed.
        if best == 65:
            texts = [
                "I do not know.",
                "<INS></INS>",
                "<INS>Rule 65</INS>",
                f"<INS>{'x' * 61}</INS>",
            ]
        else:
            texts = [
                f"<INS>Rule {best + 15}</INS>",
                f"Sure! <INS>Rule {best + 1}",
                f"<INS>rule  {best + 15}</INS>",
                "<INS>Rule {question}</INS>",
            ]
        return said(texts[body["seed"] % 4] if "seed" in body else texts[number % 4])
    rule = int(re.search(r"[Rr]ule +(\d+)", asked)[1])
    item = int(re.search(r"Headline: Item (\d+)", asked)[1])
    right = DESKS[item % 3]
    return said(right if (item * 37) % 100 < rule else DESKS[(item + 1) % 3])


@pytest.fixture
def search(tmp_path, server):
    rows = [{"question": f"Item {n}", "answer": DESKS[n % 3]} for n in range(ROWS)]
    write_lines(tmp_path / "train.jsonl", rows)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(url=server.url))
    server.behave = behave

    def search(*settings, fails=False):
        sets = [part for one in settings for part in ("--set", one)]
        done = command(
            tmp_path, "prompts", "optimize", "recipe.yaml", "--run", "run", "--update", *sets
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    search.folder, search.server = tmp_path, server
    return search


def asked(server):
    """Every question that came in, as it would be told apart by who pays for it."""
    return Counter(json.dumps(arrival.body, sort_keys=True) for arrival in server.arrivals)


def test_a_search_finds_a_better_instruction_and_asks_nothing_twice(search):
    told = search()
    stage = stage_of(search.folder, "optimize-prompt")
    assert stage.read().schema.equals(PROMPT_QUERY)
    facts = stage.manifest().facts
    tried = facts["tried"]
    assert tried[0]["text"] == "Rule 10"
    assert [one["round"] for one in tried[:2]] == [0, 0]
    texts = [one["text"] for one in tried]
    assert len({key_of(text) for text in texts}) == len(texts)
    # Scores are shares of the same rows, so a higher rule never has a lower one.
    ranked = sorted(tried, key=lambda one: int(one["text"].split()[-1]))
    scores = [one["scores"]["scoring"] for one in ranked]
    assert scores == sorted(scores)
    winner, first = tried[facts["winner"]], tried[facts["first"]]
    assert first["text"] == "Rule 20"
    assert winner["scores"]["scoring"] > first["scores"]["scoring"]
    assert len([one for one in tried if "validation" in one["scores"]]) == 2
    assert {one["text"] for one in tried if "held_out" in one["scores"]} == {
        winner["text"],
        first["text"],
    }
    rows = stage.read().to_pylist()
    uses = Counter(row["use"] for row in rows)
    assert uses["proposal"] == 24
    assert uses["scoring"] == 20 * len(tried)
    assert uses["validation"] == uses["held_out"] == 60
    by_use = {use: {row["item"] for row in rows if row["use"] == use} for use in uses}
    assert not by_use["scoring"] & by_use["validation"] & by_use["held_out"]
    assert len(by_use["scoring"] | by_use["validation"] | by_use["held_out"]) == 80
    assert len(search.server.arrivals) == len(rows)
    # Proposals are drawn, so one meta-prompt comes several times; all else comes once.
    proposals = sum("<INS>" in one for one in asked(search.server).elements())
    assert proposals == 24
    assert all(n == 1 for question, n in asked(search.server).items() if "<INS>" not in question)
    faults = sum(sum(one["faults"].values()) for one in facts["rounds"])
    valid = sum(one["valid"] for one in facts["rounds"])
    assert valid + faults == 24
    assert f"{valid} of 24 proposals could be tried" in told
    entries = Ledger(Folder(str(search.folder / "run" / "ledger"))).entries()
    assert sum(entry.requests for entry in entries) == len(rows), "every query is in the ledger"
    report = json.loads((search.folder / "run" / "report.json").read_text())["prompt_search"]
    assert report["queries"] == dict(uses)
    assert report["held_out"]["total"] == report["held_out_first"]["total"] == 30
    page = (search.folder / "run" / "report.html").read_text()
    assert f"proposed 24 instructions in 6 rounds, of which {valid} could be tried" in page
    assert f"<strong><bdi>{winner['text']}</bdi></strong>" in page
    again = search()
    assert "Everything was done already" in again
    assert len(search.server.arrivals) == len(rows)


def test_what_is_asked_shows_the_best_in_rising_order(search):
    search("optimize.rounds=2")
    metas = [
        arrival.body["messages"][-1]["content"]
        for arrival in search.server.arrivals
        if "<INS>" in arrival.body["messages"][-1]["content"]
    ]
    for meta in metas:
        scores = list(map(int, re.findall(r"Score: (\d+)", meta)))
        assert 2 <= len(scores) <= 3
        assert scores == sorted(scores)
        assert len(re.findall(r"Right answer: (?:business|health|sports)", meta)) == 2
    exemplars = {meta[meta.index("Here are questions") : meta.index("Write one")] for meta in metas}
    assert len(exemplars) == 1, "they are the same in every round"


def test_rounds_without_a_valid_proposal_are_counted_and_change_nothing(search):
    search.server.behave = lambda number, body: (
        said("I would rather not.")
        if "<INS>" in body["messages"][-1]["content"]
        else behave(number, body)
    )
    told = search("optimize.rounds=3")
    facts = stage_of(search.folder, "optimize-prompt").manifest().facts
    assert [one["valid"] for one in facts["rounds"]] == [0, 0, 0]
    assert all(one["faults"] == {"no-instruction": 4} for one in facts["rounds"])
    assert "0 of 12 proposals could be tried (0.0%); 3 rounds without one" in told
    assert facts["tried"][facts["winner"]]["round"] == 0


def test_a_teacher_that_always_says_the_same_scores_all_alike_and_the_first_wins(search):
    search.server.behave = lambda number, body: (
        behave(number, body)
        if "<INS>" in body["messages"][-1]["content"]
        else said("business, as ever")
    )
    search("optimize.rounds=2")
    facts = stage_of(search.folder, "optimize-prompt").manifest().facts
    assert len({one["scores"]["scoring"] for one in facts["tried"]}) == 1
    assert facts["winner"] == facts["first"] == 0


def test_more_rounds_go_on_where_fewer_ended(search):
    search("optimize.rounds=2")
    before = asked(search.server)
    search("optimize.rounds=4")
    after = asked(search.server)
    assert sum(1 for one in after.elements() if "<INS>" in one) == 16
    assert all(n == 1 for question, n in after.items() if "<INS>" not in question)
    assert before <= after
    assert len(stage_of(search.folder, "optimize-prompt").manifest().facts["rounds"]) == 4


def test_a_killed_search_repeats_no_query_that_was_committed(search):
    """SIGKILL in the middle of a round: what is asked afterwards was not committed before."""
    folder, arrivals = search.folder, search.server.arrivals
    search.server.behave = slow
    arguments = ["prompts", "optimize", "recipe.yaml", "--run", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stillhouse.command_line", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(arrivals) < 150 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    committed = {}
    for file in sorted((folder / "run/stages/optimize-prompt").glob("*/rows/*.parquet")):
        import pyarrow.parquet as pq

        committed |= {row["id"]: row for row in pq.read_table(file).to_pylist()}
    assert 60 < len(committed) <= len(arrivals)
    before = len(arrivals)
    search.server.behave = behave
    search()
    rows = {row["id"]: row for row in stage_of(folder, "optimize-prompt").read().to_pylist()}
    for row_id, row in committed.items():
        assert rows[row_id] == row, "it is kept as it was"
    asked_again = len(arrivals) - before
    assert asked_again == len(rows) - len(committed), "nothing that was committed is asked again"


async def slow(number, body):
    import asyncio

    await asyncio.sleep(0.01)
    return behave(number, body)


def test_a_run_asks_by_the_winner_and_another_winner_asks_anew(search):
    search("optimize.rounds=2")
    loaded = load_recipe(search.folder / "recipe.yaml", recipe_model, None, ["optimize.rounds=2"])
    run = Run(Folder(str(search.folder / "run")))
    layout = lay_out(loaded)
    before = fingerprints(layout[:4], loaded)
    after = fingerprints(layout[:4], loaded, run)
    asking = next(stage.name for stage in layout if stage.name == "ask")
    chosen = after["optimize-prompt"]
    assert chosen.work == before["optimize-prompt"].work
    whole = fingerprints(layout[:5], loaded, run)[asking].made_from["decisions"]["chosen"]
    winner = stage_of(search.folder, "optimize-prompt").manifest().facts
    text = winner["tried"][winner["winner"]]["text"]
    assert whole["big"]["prompt"] == f"{text}\nHeadline: {{{{ question }}}}"
    done = command(
        search.folder, "run", "recipe.yaml", "--run", "run", "--until", "explain", "--set",
        "optimize.rounds=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = search.server.arrivals[-1].body["messages"][-1]["content"]
    assert last.startswith(f"{text}\nHeadline: Item")


def test_a_prompt_with_examples_stands_beside_the_one_without(search):
    """Of both the tokens as the endpoint counts them, on rows that both were asked about."""

    def behave(number, body):
        asked = body["messages"][-1]["content"]
        right = DESKS[int(re.findall(r"Headline: Item (\d+)", asked)[-1]) % 3]
        if "For example" in asked:
            return said(right, tokens=(90, 2))
        return said("I cannot tell." if number % 9 == 0 else f"{right} Why?", tokens=(20, 5))

    search.server.behave = behave
    write_lines(search.folder / "examples.jsonl", [{"headline": 'A "cup" %} {{', "desk": "sports"}])
    few_shot = (
        "few_shot={rows: 40, examples: examples.jsonl, prompt: '{% for one in examples %}"
        "For example: {{ one.headline }}: {{ one.desk }}. {% endfor %}Headline: {{ question }}'}"
    )
    sets = ["optimize=null", "ask.big.prompt='Headline: {{ question }}'", few_shot]
    arguments = [part for one in sets for part in ("--set", one)]
    run = ("run", "recipe.yaml", "--run", "run", "--until", "measure-prompts")
    done = command(search.folder, *run, *arguments)
    assert done.returncode == 0, done.stderr
    zero, few = stage_of(search.folder, "measure-prompts").read().to_pylist()
    assert [one["prompt"] for one in (zero, few)] == ["as-asked", "few-shot"]
    assert zero["rows"] == few["rows"] == zero["answers"] == few["answers"] == 40
    assert (zero["tokens_in"], zero["tokens_out"]) == (800, 200)
    assert (few["tokens_in"], few["tokens_out"]) == (3600, 80)
    assert few["right"] == few["labelled"] == 40
    assert zero["right"] == zero["labelled"] < 40
    assert zero["judged"] == 40
    shown = [arrival.body["messages"][-1]["content"] for arrival in search.server.arrivals]
    begin = 'For example: A "cup" %} {{: sports. Headline: Item'
    assert sum(text.startswith(begin) for text in shown) == 40
    page = (search.folder / "run" / "report.html").read_text()
    assert "as-asked takes 27.2% of the tokens of few-shot" in page


@pytest.mark.parametrize(
    ("settings", "said_"),
    [
        (["optimize.optimizer=gpt"], "optimize.optimizer is 'gpt', but teachers has: big"),
        (["optimize.start=['{question}']"], "it must hold no braces"),
        (["optimize.start=[Rule, 'rule ']"], "it has been proposed before"),
        (["optimize.placeholders={headline: x}"], "it must hold {headline}"),
        (["ask.big.prompt='Headline: {{ question }}'"], "the prompt of ask has no place for it"),
        (["optimize=null"], "the prompt has a place for {{ instruction }}, and nothing finds one"),
        (["task.gold=null"], "name their field in task.gold"),
        (["optimize.sampling.temperature=0"], "greater than 0"),
    ],
)
def test_what_a_search_cannot_want(search, settings, said_):
    with pytest.raises(UseError) as caught:
        load_recipe(search.folder / "recipe.yaml", recipe_model, None, settings)
    assert said_ in str(caught.value)


def test_too_few_rows_are_told_before_anything_is_asked(search):
    told = search("optimize.held_out=300", fails=True)
    assert "there are 90 rows with right answers, and 350 are wanted" in told
    assert not search.server.arrivals


def test_instructions_hold_what_they_must_and_nothing_else():
    checks = Checks({"question": "{{ question }}", "options": "{{ choices | lettered }}"}, 60)
    sound = "Read {question} and take one of {options}."

    def fault(text, known=()):
        found = checks.fault(text, set(known))
        return found and found.reason

    assert fault(sound) is None
    assert fault(None) == fault(" \n") == "no-instruction"
    assert fault("Read {question}.") == "placeholders"
    assert fault(sound.replace("Read", "Read {question}")) == "placeholders"
    assert fault(sound + " {") == "placeholders"
    assert fault(sound + " {{ cycler }}") == "placeholders"
    assert fault(sound + " {}") == "placeholders"
    assert fault(sound.upper().replace("{QUESTION}", "{question}")) == "placeholders"
    assert fault(sound + " " * 60) == "too-long"
    assert fault(sound, [key_of("  read {QUESTION} and  take one of {options}. ")]) == "duplicate"
    whole = checks.put_into("{{ instruction }}\nAnswer:", sound)
    assert whole == "Read {{ question }} and take one of {{ choices | lettered }}.\nAnswer:"
    assert Checks({}, 60).put_into("{{instruction}}!", r"a \1 b") == r"a \1 b!"
