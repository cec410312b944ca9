"""`stillhouse plan --sample`: what it foretells, and that the run asks nothing of it again."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from core.identity import content_id
from core.ledger import Ledger
from core.run import Folder, Run
from pipelines.plan import sample_rows
from tests.endpoint_server import failed, said, server
from tests.unit.test_endpoint import told

__all__ = ["server"]

ROOT = Path(__file__).parents[2]

PRICES = """\
currency: USD
tokens:
  small: {input_per_million: 1.0, output_per_million: 10.0, source: test}
"""
ANSWERS = """\
name: answers
method: teacher_data
shard_rows: 20
inputs: {{file: rows.jsonl}}
teachers:
  one: {{backend: openai, model: small, base_url: "{url}"}}
ask:
  one: {{prompt: "{{{{ text }}}}"}}
prices: prices.yaml
"""
DESKS = """\
name: desks
method: fewshot_mcqa
shard_rows: 20
task:
  instruction: Say which desk.
  choices: [business, sports]
  examples: examples.jsonl
  evaluation: evaluation.jsonl
teachers:
  one: {{backend: openai, model: small, base_url: "{url}", api: completions}}
generate:
  teacher: one
  decomposed: {{rows: 400}}
  json: {{rows: 60}}
score:
  teacher: one
students:
  encoder: {{model: embedded://all-minilm-l6-v2}}
prices: prices.yaml
"""


@pytest.fixture
def stillhouse(tmp_path, server):
    (tmp_path / "prices.yaml").write_text(PRICES)

    def command(name, *arguments):
        run = [sys.executable, "-m", "stillhouse.command_line", name, "recipe.yaml"]
        return subprocess.run(
            [*run, "--run", "run", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
            capture_output=True,
            text=True,
            check=False,
        )

    def write(recipe):
        (tmp_path / "recipe.yaml").write_text(recipe.format(url=server.url))

    command.write = write
    command.folder = tmp_path
    command.run = Run(Folder(str(tmp_path / "run")))
    return command


def sound(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def interval(text):
    """The estimated tokens with their interval, as they are printed."""
    found = re.search(r"Tokens in and out: (\S+), 95% interval (\S+) to (\S+)\.", text)
    return [int(figure.replace(",", "")) for figure in found.groups()]


def foretold(tokens, estimate):
    """Whether an estimate holds, with twice its interval.

    An endpoint's port decides ids and so which rows are drawn: one test of 20 would miss the
    interval itself. `test_estimate.py` tests that it holds 19 times of 20.
    """
    value, low, high = estimate
    assert low < value < high
    return abs(tokens - value) <= high - low


def spent(run):
    return sum(entry.tokens for entry in Ledger(run.ledger).entries())


def prompts(server):
    return Counter(
        body["messages"][0]["content"] if "messages" in body else body["prompt"]
        for body in (arrival.body for arrival in server.arrivals)
    )


def answers_of_many_lengths(stillhouse, rows=1000):
    """Rows in order of their length, so that the first ones would foretell too little."""
    stillhouse.write(ANSWERS)
    generator = random.Random(1)
    lengths = sorted(int(generator.gammavariate(2, 20)) + 2 for _ in range(rows))
    texts = [f"{number} " + "word " * length for number, length in enumerate(lengths)]
    lines = [json.dumps({"text": text}) for text in texts]
    # Equal rows are one piece of work, and no estimate may count them twice.
    (stillhouse.folder / "rows.jsonl").write_text("\n".join(lines + lines[:50]))


def in_words(number, body):
    """An answer that is counted as its prompt's words in, and half of them out."""
    words = len(body["messages"][0]["content"].split())
    return said("fine", tokens=(words, words // 2))


def test_a_sample_foretells_the_tokens_of_the_run_and_is_not_asked_again(stillhouse, server):
    server.behave = in_words
    answers_of_many_lengths(stillhouse)
    plain = sound(stillhouse("plan"))
    assert not server.arrivals
    assert "interval" not in plain

    text = sound(stillhouse("plan", "--sample", "50"))
    assert len(server.arrivals) == 50
    estimate = interval(text)
    assert f"The sample took 50 requests, {spent(stillhouse.run):,} tokens" in text
    assert not (stillhouse.folder / "run" / "logs" / "ray").exists()
    status = stillhouse.run.finished_stages()
    assert set(status) == {"inputs"}, "a sample is not a stage that is done"

    sound(stillhouse("run"))
    assert len(server.arrivals) == 1000
    assert set(prompts(server).values()) == {1}
    assert foretold(spent(stillhouse.run), estimate)
    assert stillhouse.run.finished_stages()["ask"].manifest().rows == 1000
    done = sound(stillhouse("plan"))
    assert "interval" not in done
    # What is done is known, and costs nothing to be told.
    again = sound(stillhouse("plan", "--sample", "50"))
    assert interval(again) == [spent(stillhouse.run)] * 3
    assert "Left to spend: $0.00" in again
    assert len(server.arrivals) == 1000


def test_a_larger_sample_pays_the_difference_and_the_same_one_nothing(stillhouse, server):
    server.behave = in_words
    answers_of_many_lengths(stillhouse, rows=200)
    sound(stillhouse("plan", "--sample", "10"))
    again = sound(stillhouse("plan", "--sample", "10"))
    assert "nothing was spent" in again
    assert len(server.arrivals) == 10
    sound(stillhouse("plan", "--sample", "30"))
    assert len(server.arrivals) == 30
    # The arithmetic needs no new sample where rows are there.
    free = sound(stillhouse("plan"))
    assert "By the rows so far" in free
    assert re.search(r"ask +partly done +30 +one", free), "a row that stands in two shards is one"
    assert interval(free)[0] > spent(stillhouse.run)
    assert len(server.arrivals) == 30


def test_rejected_rows_of_a_sample_are_not_asked_again_either(stillhouse, server):
    def behave(number, body):
        odd = int(body["messages"][0]["content"].split()[0]) % 2
        return failed(400, "not this one") if odd else in_words(number, body)

    server.behave = behave
    answers_of_many_lengths(stillhouse, rows=200)
    estimate = interval(sound(stillhouse("plan", "--sample", "50")))
    sound(stillhouse("run"))
    assert set(prompts(server).values()) == {1}
    assert stillhouse.run.finished_stages()["ask"].manifest().rejected == {"refused": 100}
    assert foretold(spent(stillhouse.run), estimate)


def test_a_budget_and_a_missing_price_are_told(stillhouse, server):
    server.behave = in_words
    answers_of_many_lengths(stillhouse, rows=200)
    text = sound(stillhouse("plan", "--sample", "20", "--set", "budget.tokens=100000"))
    assert "budget.tokens, 100,000, is enough" in text
    text = sound(stillhouse("plan", "--sample", "20", "--set", "budget.tokens=3000"))
    assert "budget.tokens, 3,000, is not enough" in text
    (stillhouse.folder / "prices.yaml").write_text("currency: USD")
    text = sound(stillhouse("plan", "--sample", "20"))
    assert "Left to spend: unknown" in text
    assert len(server.arrivals) == 20


def test_another_recipe_in_the_same_folder_is_refused_as_a_run_is(stillhouse, server):
    server.behave = in_words
    answers_of_many_lengths(stillhouse, rows=50)
    sound(stillhouse("plan", "--sample", "10"))
    changed = ["--set", "ask.one.samples=2"]
    refused = stillhouse("plan", "--sample", "10", *changed)
    assert refused.returncode == 2
    assert "ask.one.samples: 1 -> 2" in refused.stderr
    assert len(server.arrivals) == 10
    sound(stillhouse("plan", "--sample", "10", "--update", *changed))
    assert len(server.arrivals) <= 20


def test_a_method_with_a_filter_between_its_teachers(stillhouse, server):
    """Items are written, cleaned and scored; a quarter of the written ones is too short."""
    labels = {" business": -0.5, " sports": -1.0}

    def behave(number, body):
        words = len(body["prompt"].split())
        if "logprobs" in body:
            answer = told("completions", labels)
        elif "response_format" in body:
            answer = said(json.dumps({"answer": "sports", "question": f"what is {number} worth"}))
        else:
            long = f"item {number} " + "and more " * (number % 7 + 1)
            answer = said("short" if number % 4 == 0 else long)
        answer["usage"] = {"prompt_tokens": words, "completion_tokens": number % 5 + 1}
        return answer

    server.behave = behave
    stillhouse.write(DESKS)
    for name, rows in (("examples", 2), ("evaluation", 120)):
        lines = [
            {"question": f"{name} headline {number} " + "on " * (number % 9), "answer": "sports"}
            for number in range(rows)
        ]
        text = "\n".join(json.dumps(line) for line in lines)
        (stillhouse.folder / f"{name}.jsonl").write_text(text)
    text = sound(stillhouse("plan", "--sample", "32"))
    asked = len(server.arrivals)
    # 32 of 400 are written and in proportion 5 of 60; 29 of them are scored, and 32 evaluation
    # rows; with three calibration prompts each.
    assert asked == 32 + 5 + 29 + 32 + 2 * 3
    estimate = interval(text)
    rows = {line.split()[0]: line for line in text.splitlines() if " one " in line}
    assert rows["write"].split()[2] == "400"
    assert rows["write-json"].split()[2] == "60"
    assert rows["score"].split()[2] == "about"
    assert rows["score-evaluation"].split()[2] == "120"
    assert "Not in the estimate: train-encoder" in text

    sound(stillhouse("run", "--until", "score"))
    sound(stillhouse("run", "--until", "score-evaluation"))
    cleaned = stillhouse.run.finished_stages()["clean"].manifest().rows
    assert foretold(spent(stillhouse.run), estimate)
    scored = Counter(a.body["prompt"] for a in server.arrivals if "logprobs" in a.body)
    assert len(server.arrivals) - scored.total() == 400 + 60
    # Each question once; the three prompts of the calibration by each of four attempts.
    assert sorted(scored.values())[-4:] == [1, 4, 4, 4]
    assert cleaned + 120 <= len(scored) - 3 <= cleaned + 120 + 32


def test_a_sample_of_rows_is_random_nested_and_in_order():
    rows = [{"id": content_id(number), "number": number} for number in range(5000)]
    few, many = sample_rows(iter(rows), 40), sample_rows(iter(rows + rows), 400)
    assert len(few) == 40
    assert len(many) == 400, "a repeated id counts once"
    assert {row["id"] for row in few} < {row["id"] for row in many}
    numbers = [row["number"] for row in many]
    assert numbers == sorted(numbers)
    assert 2200 < sum(numbers) / 400 < 2800
    assert sample_rows(rows[:7], 40) == rows[:7]
