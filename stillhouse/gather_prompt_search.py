"""Reads a search for a prompt into the report."""

from __future__ import annotations

from collections import Counter

from core.identity import content_id
from stillhouse.gather_students import paired
from stillhouse.report.data import Score
from stillhouse.report.prompt_search import Instruction, PromptSearch, Round
from stillhouse.run_reader import RunReader
from stillhouse.searching import OPTIMIZE


def search_of(reader: RunReader) -> PromptSearch | None:
    """The search of a run; None where there is none, or it is not done."""
    if OPTIMIZE not in reader.finished:
        return None
    stage = next(stage for stage in reader.layout if stage.name == OPTIMIZE)
    facts = reader.manifest(OPTIMIZE).facts
    tried = facts["tried"]
    queries: Counter[str] = Counter()
    right: dict[str, dict[str, bool]] = {}
    for row in reader.rows(OPTIMIZE):
        queries[row["use"]] += 1
        if row["use"] == "held_out":
            right.setdefault(row["instruction"], {})[row["item"]] = row["right"]
    by_number = {
        number: right.get(content_id(tried[number]["text"]), {})
        for number in (facts["winner"], facts["first"])
    }
    held_out = facts["rows"]["held_out"]
    winner, first = by_number[facts["winner"]], by_number[facts["first"]]
    return PromptSearch(
        teacher=stage.settings["teacher"],
        optimizer=stage.settings["search"]["optimizer"],
        instructions=[
            Instruction(
                one["text"], one["round"], one["scores"]["scoring"], one["scores"].get("validation")
            )
            for one in tried
        ],
        rounds=[Round(**one) for one in facts["rounds"]],
        winner=facts["winner"],
        first=facts["first"],
        rows=facts["rows"],
        # What was not answered is wrong, as in every score of the search.
        held_out=Score.of(sum(winner.values()), held_out),
        held_out_first=Score.of(sum(first.values()), held_out),
        paired=paired(winner, first),
        queries=dict(queries),
    )
