"""Chains of density: found in what models write around them, and 500 that are broken."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from core.recipe_answers import AnswerTask
from core.recipe_prompts import Answer, Steps
from pipelines.answers import AnswerReader, Found, NotFound
from pipelines.prompt_library import read_template
from pipelines.step_lists import read_steps

SHARED = os.environ.get("STILLHOUSE_SHARED")
CHAIN = [
    {"Missing_Entities": f"entity {n}", "Denser_Summary": f"Summary {n} of Lisbon, 1755."}
    for n in range(4)
]
TEXT = json.dumps(CHAIN, indent=2)


def reader(number=4):
    task = AnswerTask.model_validate({"kind": "summarization"})
    return AnswerReader(task, Answer(steps=Steps(key="Denser_Summary", number=number)))


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        json.dumps(CHAIN),
        f"Here are the summaries [as JSON]:\n```json\n{TEXT}\n```\nI hope this helps [sic].",
        json.dumps({"steps": CHAIN}),
        TEXT.replace("Denser_Summary", "denser summary"),
        TEXT.replace("1755.", "17\n55."),
        TEXT[:-1],
        TEXT.rstrip("]").rstrip() + ",",
        json.dumps([*CHAIN, {"Missing_Entities": "none"}]),
    ],
)
def test_the_last_of_four_summaries_is_the_answer(text):
    found = reader().read(text, [])
    assert isinstance(found, Found), found
    assert found.text.replace("\n", "") == "Summary 3 of Lisbon, 1755."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT[: TEXT.rindex("{") + 20], "3 of 4 steps"),
        (json.dumps(CHAIN[:2]), "2 of 4 steps"),
        ("", "0 of 4 steps"),
        ("A summary of Lisbon.", "0 of 4 steps"),
        ("[" * 5_000, "0 of 4 steps"),
        ("[1, 2]", "0 of 4 steps"),
        (json.dumps([CHAIN[0]["Denser_Summary"]] * 4), "0 of 4 steps"),
        (json.dumps([{"Denser_Summary": 3}] * 4), "0 of 4 steps"),
        (json.dumps([{"Denser_Summary": " "}] * 4), "0 of 4 steps"),
    ],
)
def test_fewer_steps_are_no_answer(text, said):
    found = reader().read(text, [])
    assert isinstance(found, NotFound)
    assert found.reason == "unparsed"
    assert said in found.detail


def broken(random_):
    """A chain of density as a model may spoil it."""
    text = random_.choice([TEXT, json.dumps(CHAIN), f"```json\n{TEXT}\n```"])
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(text) + 1)
        how = random_.randrange(5)
        if how == 0:
            text = text[:at]
        elif how == 1:
            text = (
                text[:at]
                + random_.choice(['"', "{", "]", "\\", "\x00", "\ud800", "\u202e"])
                + text[at:]
            )
        elif how == 2:
            text = text[:at] + text[at + random_.randint(1, 9) :]
        elif how == 3:
            text = text.replace('"', random_.choice(["'", "\u201c", ""]), random_.randint(1, 6))
        else:
            text = text[:at] + text[: random_.randrange(60)] + text[at:]
    return text


def malformed(number=500):
    random_ = random.Random(0)
    return [broken(random_) for _ in range(number)]


def test_five_hundred_malformed_chains_are_counted_and_none_stops_the_reading():
    counts = {"found": 0, "unparsed": 0}
    for text in malformed():
        found = reader().read(text, [])
        counts["found" if isinstance(found, Found) else found.reason] += 1
        if isinstance(found, Found):
            assert found.text.strip()
    assert sum(counts.values()) == 500
    # Most are spoilt for good, and some only around what counts.
    assert counts["unparsed"] > 300
    assert counts["found"] > 20


@pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with data")
def test_chains_of_real_texts_are_found_again():
    """Replies of GPT-4 to MT-Bench as summaries: brackets, quotes, code and line ends in them."""
    file = Path(SHARED) / "data" / "judge" / "reference_gpt-4.jsonl"
    replies = [
        turn
        for line in file.read_text().splitlines()
        for turn in json.loads(line)["choices"][0]["turns"]
    ]
    assert len(replies) >= 60
    for begin in range(0, len(replies) - 3, 4):
        four = replies[begin : begin + 4]
        chain = [{"Missing_Entities": "x; y", "Denser_Summary": text} for text in four]
        for text in (json.dumps(chain), f"As you wish [1]:\n{json.dumps(chain, indent=1)}\nDone."):
            assert read_steps(text, "Denser_Summary") == [text.strip() for text in four]
            assert reader().read(text, []).text == four[-1].strip()


def test_the_librarys_chain_of_density_wants_four():
    answer = read_template("summarization/chain_of_density")[1].answer
    assert answer.steps == Steps(key="Denser_Summary", number=4)
