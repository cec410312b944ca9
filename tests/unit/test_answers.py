"""Finding answers in texts: cases worked out by hand, and texts as bad as they come."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.recipe_answers import AnswerTask
from pipelines.answered_rows import vote
from pipelines.answers import AnswerReader, Found, NotFound
from pipelines.asked_texts import Asked
from pipelines.questions import Question, Questions
from pipelines.row_work import Rejection

PLACES = ["wooded area", "dam", "lake", "dam"]


def task(kind="choices", **answer):
    choices = {"choices_field": "choices"} if kind == "choices" else {}
    return AnswerTask.model_validate(
        {"kind": kind, "prompt": "{{ question }}", "gold": "answer", **choices, "answer": answer}
    )


def read(text, choices=PLACES, kind="choices", **answer):
    found = AnswerReader(task(kind, **answer)).read(text, choices if kind == "choices" else [])
    return found.reason if isinstance(found, NotFound) else found


PALM = {"cut_at": ["Q:"], "pattern": r"(?s)So the answer is\s*(?:\(\w\))?(.*)"}
PALM_TEXTS = [
    ("Beavers need wood. So the answer is (a) wooded area.", 0),
    ("Beavers need wood. So the answer is (c) wooded area.\n\nQ: And?\nA: So the answer is b.", 0),
    ("Either. So the answer is either (a) wooded area or (c) lake.", "outside-choices"),
    ("So the answer is (b) Dam.", 1),
    ("So the answer is (b) dam", 1),
    ("So the answer is (c)  'lake' ", 2),
    ("Only lakes will do.", "unparsed"),
    ("So the answer is ", "unparsed"),
    ("Q: So the answer is (c) lake.", "unparsed"),
    ("So the answer is (c) lake. No: So the answer is (b) dam.", "outside-choices"),
]


@pytest.mark.parametrize(("text", "expected"), PALM_TEXTS)
def test_the_choice_that_a_chain_of_thought_ends_with(text, expected):
    found = read(text, **PALM)
    assert found == expected if isinstance(expected, str) else found.choice == expected


def test_of_several_matches_the_last_counts_and_without_a_group_all_of_it():
    assert read("Answer: lake\nAnswer: dam", pattern="Answer:(.*)").choice == 1
    assert read("It is a lake or a dam", pattern="lake|dam").choice == 1
    # A group that took no part in its match holds nothing.
    assert read("Answer?", pattern=r"Answer(:.*)?") == "unparsed"


def test_capitals_count_where_the_recipe_says_so():
    assert read("DAM.", ignore_case=False) == "outside-choices"
    assert read("DAM.").choice == 1


@pytest.mark.parametrize(
    ("text", "choice"),
    [("(b)", 1), ("B", 1), ("c. lake", 2), ("**C**", 2), ("c\nbecause", 2), ("dam", 1)],
)
def test_letters_stand_for_choices(text, choice):
    assert read(text, form="letter").choice == choice


@pytest.mark.parametrize("text", ["A lake", "I think so", "(e)", "dams", "bc"])
def test_what_only_begins_with_a_letter_does_not(text):
    assert read(text, form="letter") == "outside-choices"


def test_a_choice_that_looks_like_a_letter_is_itself():
    assert read("C. elegans", ["E. coli", "C. elegans", "yeast"], form="letter").choice == 1


NUMBERS = [
    ("The total is $1,234.50.", "1234.5"),
    ("3 + 4 = 7 apples", "7"),
    ("minus: -12", "-12"),
    ("\N{MINUS SIGN}3.0", "-3"),
    ("5-7", "7"),
    ("0.50", "0.5"),
    (".5", "0.5"),
    ("-0", "0"),
    ("007", "7"),
    ("1,2345", "2345"),
    ("3,5", "5"),
    ("1e3", "3"),
    ("9" * 5_000, "9" * 5_000),
    ("seven", "unparsed"),
    ("\u0667", "unparsed"),
    ("-", "unparsed"),
]


@pytest.mark.parametrize(("text", "expected"), NUMBERS)
def test_the_last_number_in_its_shortest_form(text, expected):
    found = read(text, kind="text", form="number")
    assert (
        found == expected
        if expected == "unparsed"
        else (found.text, found.key)
        == (
            expected,
            expected,
        )
    )


def test_numbers_may_be_choices():
    assert read("It makes 32,400 in all", ["6000", "32400.0"], form="number").choice == 1
    assert read("It makes 5", ["6000", "32400"], form="number") == "outside-choices"


def test_words_may_mean_another():
    words = {"entails": "Entailment", "yes": "Entailment"}
    for text in ("ENTAILS.", " yes "):
        assert read(text, ["entailment", "neutral"], map=words).choice == 0


def test_a_text_is_an_answer_as_it_was_written_and_compared_without_trimmings():
    found = read("  The *Nile*. ", kind="text")
    assert (found.text, found.key) == ("The *Nile*.", "the *nile")
    assert read('"The Nile"', kind="text").key == read("the nile!", kind="text").key


def test_a_rationale_is_what_its_pattern_finds_and_blank_ones_are_none():
    why = {**PALM, "rationale_pattern": r"(?s)^(.*?)So the answer is"}
    assert read("Wood.\nSo the answer is (b) dam", **why).rationale == "Wood."
    assert read(" So the answer is (b) dam", **why).rationale is None
    assert read("Wood. So the answer is (b) dam", **PALM).rationale is None


@pytest.mark.parametrize(
    ("value", "choice"),
    [("lake", 2), ("b", None), (2, 2), (3, 3), (4, None), (-1, None), (True, None), (None, None)],
)
def test_gold_is_a_choice_or_its_number(value, choice):
    found = AnswerReader(task()).read_gold(value, PLACES)
    assert (found and found.choice) == choice
    # Two equal choices are one answer.
    if choice == 3:
        assert found.key == AnswerReader(task()).read("dam", PLACES).key


def test_a_gold_letter_and_a_gold_number():
    assert AnswerReader(task(form="letter")).read_gold("C", PLACES).choice == 2
    numbers = AnswerReader(task("text", form="number"))
    assert numbers.read_gold("48 / 2 = 24\n#### 1,072", []).text == "1072"
    assert numbers.read_gold(72.0, []).text == "72"


def test_votes_count_all_samples_and_the_first_of_equals_wins():
    lake, dam = Found("lake", "lake", 2, "Fish."), Found("dam", "dam", 1)
    again = Found("Lake", "lake", 2, "Water.")
    none = NotFound("unparsed", "")
    winner = vote([dam, lake, again, none])
    assert (winner.found, winner.share, winner.outvoted) == (lake, 0.5, 1)
    assert vote([none, dam, lake]).found == dam
    assert vote([none, none]) is None


def row(**fields):
    return {"id": "row", "fields": json.dumps(fields)}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"choices": PLACES, "answer": "dam"}, "no-field"),
        ({"question": " ", "choices": PLACES, "answer": "dam"}, "empty"),
        ({"question": "Where?", "answer": "dam"}, "no-choices"),
        ({"question": "Where?", "choices": ["dam"], "answer": "dam"}, "no-choices"),
        ({"question": "Where?", "choices": ["dam", 3], "answer": "dam"}, "no-choices"),
        ({"question": "Where?", "choices": ["dam", " "], "answer": "dam"}, "no-choices"),
        ({"question": "Where?", "choices": {"a": "dam"}, "answer": "dam"}, "no-choices"),
        ({"question": "Where?", "choices": PLACES}, "no-gold"),
        ({"question": "Where?", "choices": PLACES, "answer": ["dam"]}, "no-gold"),
    ],
)
def test_why_there_is_no_question_about_a_row(fields, reason):
    questions = Questions(task())
    assert questions.with_right_answer(row(**fields)).reason == reason


def test_a_question_has_its_rows_own_choices():
    found = Questions(task()).of(row(question="Where\ud800?", choices=PLACES, answer="lake"))
    assert found == Question("row", Asked("", ["Where\\ud800?"]), PLACES, found.right)
    assert found.right.choice == 2


SETTINGS = [
    {},
    PALM,
    {"form": "letter", "pattern": r"\((.)\)"},
    {"form": "number", "cut_at": ["\n"]},
    {**PALM, "map": {"yes": "dam"}, "rationale_pattern": r"^(.*?)So"},
]
BITS = st.sampled_from(
    [
        *(
            "So the answer is",
            "(a)",
            "(z)",
            "dam",
            "lake",
            "Q:",
            "\n",
            "yes",
            "-",
            ".",
            ",",
            "\u2212",
        ),
        *("1,234", "9" * 400, "\x00", "\u202e", "مرحبا", "🧪", "{{ x }}", '"', "*", "I", "\u0660"),
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(BITS, max_size=12).map(" ".join))


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from(SETTINGS), st.sampled_from(["choices", "text"]))
def test_no_text_stops_the_reading_and_what_is_found_can_be_read_again(text, answer, kind):
    choices = PLACES if kind == "choices" else []
    reader = AnswerReader(task(kind, **answer))
    found = reader.read(text, choices)
    if isinstance(found, NotFound):
        assert found.reason in ("unparsed", "outside-choices")
        assert kind == "choices" or found.reason == "unparsed"
        return
    assert found.text.strip()
    assert (found.choice is None) == (kind == "text")
    # What a student learns to write is read as the same answer when it writes it.
    again = reader.read_plain(found.text, choices)
    assert isinstance(again, Found)
    if "map" not in answer:
        assert again.key == found.key


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_no_value_of_a_row_stops_the_asking(value):
    questions = Questions(task())
    fields = {"question": value, "choices": value, "answer": value}
    for made in (row(**fields), row(**{**fields, "question": "Where?", "choices": PLACES})):
        assert isinstance(questions.with_right_answer(made), Question | Rejection)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"choices_field": None}, "give either choices or choices_field"),
        ({"choices": ["a", "b"]}, "give either choices or choices_field"),
        ({"kind": "text"}, "leave choices and choices_field out"),
        ({"labels": "gold", "gold": None}, "name the field"),
        ({"labels": "gold", "weight": "agreement"}, "set weight to equal"),
        ({"answer": {"pattern": "("}}, "no regular expression"),
        ({"answer": {"rationale_pattern": "*"}}, "no regular expression"),
        ({"answer": {"cut_at": [""]}}, "at least 1 character"),
    ],
)
def test_what_a_task_cannot_be(changed, said):
    sound = {"kind": "choices", "choices_field": "choices", "prompt": "{{ question }}", "gold": "a"}
    with pytest.raises(ValidationError, match=said):
        AnswerTask.model_validate({**sound, **changed})
