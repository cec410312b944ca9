"""What licences ask of a student, and how a model's licence is found."""

import re
from datetime import date

import pytest

from core.licences import (
    Source,
    find_source,
    front_matter,
    licences,
    notice,
    objections,
    own_licence,
    shown,
)


def source(licence, use="outputs", name="large"):
    return Source(name, f"models/{licence}", use, licence, "for the test")


BASE = source("apache-2.0", "weights", "base")


@pytest.mark.parametrize(
    ("model", "licence"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1"),
        ("meta-llama/Meta-Llama-3.1-70B", "llama3.1"),
        ("meta-llama/Llama-3.2-1B", "llama3.2"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3.3"),
        ("meta-llama/Meta-Llama-3-8B", "llama3"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama2"),
        ("meta-llama/Llama-4-Scout-17B-16E", "llama4"),
        ("TinyLlama/TinyLlama-1.1B", None),
        ("google/gemma-3-4b-it", "gemma"),
        ("google/gemma-2b", "gemma"),
        ("google/gemma-4-31B-it", "apache-2.0"),
        ("Qwen/Qwen2.5-7B-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-72B-Instruct", "qwen"),
        ("Qwen/Qwen2.5-3B-Instruct", "qwen-research"),
        ("gpt-5-mini", "openai"),
        ("openai/gpt-oss-20b", "apache-2.0"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-flash", "google"),
        ("palm-540b", None),
        ("my-own-model", None),
    ],
)
def test_a_name_is_the_last_resort_and_told_as_a_guess(model, licence):
    found = find_source("large", model, "outputs")
    assert found.licence == licence
    assert ("guess" in found.how) == (licence is not None)


def test_an_embedded_model_knows_its_licence():
    assert find_source("t", "embedded://gemma-3-270m", "outputs").licence == "gemma"
    assert find_source("s", "embedded://all-minilm-l6-v2", "weights").licence == "apache-2.0"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: llama3.1\n---\n# A model\n", "llama3.1"),
        ("---\nlicense: Apache-2.0\n---\n", "apache-2.0"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        ("---\nlicense: cc-by-4.0\n---\n", None),
    ],
)
def test_a_card_counts_more_than_a_name(tmp_path, card, licence):
    folder = tmp_path / "gemma-3-4b"
    folder.mkdir()
    (folder / "README.md").write_bytes(card.encode())
    for model in (str(folder), folder.as_uri()):
        found = find_source("large", model, "outputs")
        assert found.licence == licence
        assert "card" in found.how


@pytest.mark.parametrize(
    "card", ["# No head\n", "---\nlicense: [\n---\n", "---\nlicense: 7\n---\n"]
)
def test_a_card_that_says_nothing_leaves_the_name(tmp_path, card):
    folder = tmp_path / "gemma-3-4b"
    folder.mkdir()
    (folder / "README.md").write_text(card)
    found = find_source("large", str(folder), "outputs")
    assert (found.licence, found.how) == ("gemma", "a guess by its name")
    assert "license" not in front_matter("# No head\n")


def test_an_endpoint_is_known_by_its_host():
    found = find_source("far", "some-name", "outputs", "https://api.openai.com/v1")
    assert found.licence == "openai"
    assert "api.openai.com" in found.how
    elsewhere = find_source("far", "some-name", "outputs", "https://api.openai.com.example/v1")
    assert elsewhere.licence is None


def test_every_term_names_its_clause_and_the_day_it_was_read():
    for licence in licences().values():
        assert licence.url.startswith("https://")
        assert date(2026, 1, 1) <= licence.read
        assert licence.seen
        for name in licence.names:
            re.compile(name)
        assert licence.terms
        for term in licence.terms:
            assert term.say.endswith(".")
            assert term.clause
            assert 3 <= len(term.quote.split()) <= 15 or term.quote == "model distillation"


@pytest.mark.parametrize(
    ("sources", "word", "name"),
    [
        ([BASE], "apache-2.0", None),
        ([BASE, source("mit")], "apache-2.0", None),
        ([BASE, source("gemma")], "gemma", None),
        ([BASE, source("llama3.1")], "llama3.1", None),
        ([source("gemma", "weights", "base"), source("apache-2.0")], "gemma", None),
        ([BASE, source("gemma"), source("llama3.3")], "other", "several"),
        ([BASE, source("llama4")], "other", "llama4"),
        ([BASE, source(None)], "other", "undetermined"),
        ([source(None, "weights", "base"), source("gemma")], "other", "undetermined"),
    ],
)
def test_a_student_comes_under_what_binds_it(sources, word, name):
    found = own_licence(sources)
    assert (found.word, found.name) == (word, name)


def test_gemma_asks_for_its_notice_and_llama_to_be_displayed():
    gemma = notice([BASE, source("gemma")])
    assert gemma == (
        "Gemma is provided under and subject to the Gemma Terms of Use found at "
        "ai.google.dev/gemma/terms\n"
    )
    assert notice([BASE]) is None
    assert notice([BASE, source("llama3.2")]) is None, "it is asked of copies of Llama alone"
    started = [source("llama3.2", "weights", "base"), source("gemma")]
    assert len(notice(started).split("\n\n")) == 2
    assert shown(started) == ["Built with Llama"]
    assert shown([BASE, source("llama3.1"), source("llama3.3")]) == ["Built with Llama"]


@pytest.mark.parametrize(
    ("licence", "use", "name", "mend"),
    [
        ("llama3.1", "outputs", "router", "Call it Llama-router."),
        ("llama3.1", "outputs", "my-Llama", "Call it Llama-my-Llama."),
        ("llama3.1", "outputs", "Llama-router", None),
        ("llama3.3", "weights", "router", "Call it Llama-router."),
        ("llama3", "weights", "Llama_3_router", "Read https"),  # the name is right
        ("llama2", "outputs", "Llama-2-router", "Read https"),
        ("openai", "outputs", "router", "Read https"),
        ("gemma", "outputs", "router", None),
        ("apache-2.0", "outputs", "router", None),
    ],
)
def test_what_stands_against_publishing(licence, use, name, mend):
    found = objections([source(licence, use)], name, public=False)
    if mend is None:
        assert not found
    else:
        assert len(found) == 1
        assert found[0].mend.startswith(mend)
        assert licences()[licence].name in found[0].cause


def test_an_unknown_licence_stands_against_publishing_to_everybody():
    assert not objections([BASE, source(None)], "router", public=False)
    (found,) = objections([BASE, source(None)], "router", public=True)
    assert "unknown" in found.cause
