"""Reads people's ratings into the report's tables."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from stillhouse.arms import arm_columns
from stillhouse.distilling import DistillingRecipe
from stillhouse.rating_sheet import AGREEMENT, KEY, ratings_folder, read_ratings
from stillhouse.report.ratings import People, PeopleTable
from stillhouse.run_reader import RunReader


def people(reader: RunReader) -> People | None:
    """What people said; None before anybody has."""
    folder, recipe = ratings_folder(reader.run), reader.loaded.recipe
    raters = read_ratings(reader.run)
    if not raters or not isinstance(recipe, DistillingRecipe):
        return None
    lines = folder.read_json(KEY)["lines"]
    order = [arm for arms in arm_columns(recipe).values() for arm, _ in arms]
    found: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    replies: dict[str, set[str]] = defaultdict(set)
    for rater, ratings in raters.items():
        for number, value in ratings.items():
            what = lines[number]
            found[what["dataset"]][rater][what["model"]].append(value)
            replies[what["dataset"]].add(number)
    tables = []
    for dataset, by_rater in found.items():
        means = {
            rater: {arm: fmean(values) for arm, values in by_arm.items()}
            for rater, by_arm in by_rater.items()
        }
        arms = [arm for arm in order if any(arm in mine for mine in means.values())]
        tables.append(
            PeopleTable(
                dataset=dataset,
                arms=arms,
                raters=means,
                means={a: fmean(m[a] for m in means.values() if a in m) for a in arms},
                replies=len(replies[dataset]),
            )
        )
    return People(tables, folder.read_json(AGREEMENT)["alpha"], len(raters))
