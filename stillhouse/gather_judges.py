"""Reads what judges said into the report's tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, median, stdev

import numpy as np
from scipy.stats import spearmanr

from stillhouse.arms import student_arm, teacher_arm
from stillhouse.distilling import DistillingRecipe
from stillhouse.report.arms import ArmTable, mean_interval
from stillhouse.report.judges import Bias, Complexity, JudgeTable, Preferred, Rated
from stillhouse.run_reader import Row, RunReader


def judge_tables(reader: RunReader) -> list[JudgeTable]:
    """What each judge said of the answers to each data set."""
    recipe = reader.loaded.recipe
    if not isinstance(recipe, DistillingRecipe):
        return []
    found = []
    for part in recipe.parts():
        for name, judge in recipe.judges.items():
            stage = part.stage(f"rate-{name}")
            if judge.rates != "answers" or stage not in reader.finished:
                continue
            rows = reader.rows(stage)
            compared = part.stage(f"prefer-{name}")
            verdicts = reader.rows(compared) if judge.pairs else []
            unparsed = [
                reader.manifest(s).rejected for s in (stage, compared) if s in reader.finished
            ]
            found.append(
                JudgeTable(
                    judge=name,
                    model=recipe.teachers[judge.teacher].model,
                    dataset=part.name or recipe.name,
                    rated=ratings(rows, judge.scale),
                    bias=bias(rows, verdicts),
                    unparsed=sum(rejected.get("unparsed", 0) for rejected in unparsed),
                    preferred=preferences(verdicts),
                )
            )
    return found


def ratings(rows: Sequence[Row], scale: tuple[float, float]) -> list[Rated]:
    """How each arm was rated.

    Args:
        rows: Of `core.rows.RATED`.
        scale: The least and the greatest rating.
    """
    by_arm: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_arm[row["model"]].append(row)
    found = []
    for arm, mine in by_arm.items():
        by_prompt: dict[str, list[float]] = defaultdict(list)
        conversations: dict[str, list[float]] = defaultdict(list)
        for row in mine:
            by_prompt[row["prompt"]].append(row["rating"])
            conversations[row["item"]].append(row["rating"])
        means = {prompt: fmean(values) for prompt, values in by_prompt.items()}
        mean = fmean(means.values())
        # The turns of a conversation are no independent draws.
        middles = [fmean(values) for values in conversations.values()]
        interval = mean_interval(middles)
        shift = mean - fmean(middles)
        found.append(
            Rated(
                arm=arm,
                mean=mean,
                spread=stdev(means.values()) if len(means) > 1 else None,
                by_prompt=means,
                replies=len({(row["item"], row["turn"]) for row in mine}),
                low=None if interval is None else max(interval[0] + shift, scale[0]),
                high=None if interval is None else min(interval[1] + shift, scale[1]),
            )
        )
    return found


def bias(rows: Sequence[Row], verdicts: Sequence[Row]) -> Bias:
    """Whether a judge looks at the length of a reply, or at who stands first.

    Args:
        rows: Of `core.rows.RATED`.
        verdicts: Of `core.rows.COMPARED`.
    """
    groups: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["item"], row["turn"], row["prompt"]].append(row)
    within: list[tuple[float, float]] = []
    for group in groups.values():
        if len(group) > 1:
            words, mean = fmean(r["words"] for r in group), fmean(r["rating"] for r in group)
            within += [(r["words"] - words, r["rating"] - mean) for r in group]
    both = list(_both_orders(verdicts))
    decided = [row for row in verdicts if row["verdict"] != "tie"]
    longer = [row for row in decided if row["words_first"] != row["words_second"]]
    same = sum(_winner(one) == _winner(other) for one, other in both)
    return Bias(
        ratings=len(rows),
        length=_correlation(within),
        length_overall=_correlation([(r["words"], r["rating"]) for r in rows]),
        pairs=len(both),
        consistent=same / len(both) if both else None,
        first=_share(row["verdict"] == "first" for row in decided),
        longer=_share(
            (row["verdict"] == "first") == (row["words_first"] > row["words_second"])
            for row in longer
        ),
    )


def preferences(verdicts: Sequence[Row]) -> list[Preferred]:
    """Of each pair of arms: on how many rows both orders agree, and on whom."""
    found: dict[tuple[str, str], list[int]] = {}
    for one, other in _both_orders(verdicts):
        counts = found.setdefault((one["first"], one["second"]), [0, 0, 0])
        winner = _winner(one)
        if winner is None or winner != _winner(other):
            counts[2] += 1
        else:
            counts[0 if winner == one["first"] else 1] += 1
    return [Preferred(*pair, *counts) for pair, counts in found.items()]


def _both_orders(verdicts: Sequence[Row]) -> Iterable[tuple[Row, Row]]:
    """The two verdicts on each row and pair that was judged in both orders."""
    seen: dict[tuple[str, str, str], Row] = {}
    for row in verdicts:
        other = seen.pop((row["item"], row["second"], row["first"]), None)
        if other is None:
            seen[row["item"], row["first"], row["second"]] = row
        else:
            yield other, row


def _winner(row: Row) -> str | None:
    """The arm that a verdict prefers; None of a tie."""
    found: str | None = None if row["verdict"] == "tie" else row[row["verdict"]]
    return found


def _share(said: Iterable[bool]) -> float | None:
    listed = list(said)
    return sum(listed) / len(listed) if listed else None


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's; None where one side does not vary."""
    array = np.asarray(pairs, float)
    if len(array) < 3 or (array.std(axis=0) == 0).any():
        return None
    return float(spearmanr(array[:, 0], array[:, 1]).statistic)


def complexities(reader: RunReader, tables: Sequence[ArmTable]) -> list[Complexity]:
    """How complex each data set is, the most complex first.

    Args:
        reader: Of the run.
        tables: Of the arms, which tell the gaps.
    """
    recipe = reader.loaded.recipe
    if not isinstance(recipe, DistillingRecipe):
        return []
    found = []
    for part in recipe.parts():
        for name, judge in recipe.judges.items():
            stage = part.stage(f"rate-{name}")
            if judge.rates == "questions" and stage in reader.finished:
                rows, dataset = reader.rows(stage), part.name or recipe.name
                if rows:
                    unparsed = reader.manifest(stage).rejected.get("unparsed", 0)
                    gaps = _gaps(recipe, dataset, tables)
                    found.append(_complexity(name, dataset, rows, unparsed, gaps))
    return sorted(found, key=lambda one: -one.mean)


def _complexity(
    judge: str, dataset: str, rows: Sequence[Row], unparsed: int, gaps: dict[str, float]
) -> Complexity:
    by_row: dict[str, list[float]] = defaultdict(list)
    criteria: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        by_row[row["item"]].append(row["rating"])
        for one in row["criteria"] or []:
            criteria[one["name"]].append(one["rating"])
    values = [fmean(ratings) for ratings in by_row.values()]
    return Complexity(
        judge=judge,
        dataset=dataset,
        rows=len(values),
        mean=fmean(values),
        median=median(values),
        by_criterion={name: fmean(listed) for name, listed in criteria.items()},
        unparsed=unparsed,
        gaps=gaps,
    )


def _gaps(recipe: DistillingRecipe, dataset: str, tables: Sequence[ArmTable]) -> dict[str, float]:
    scores = next(
        (
            row.scores
            for table in tables
            if table.measure == "accuracy"
            for row in table.rows
            if row.dataset == dataset
        ),
        {},
    )
    teacher = next(iter(recipe.ask))
    plain = scores.get(teacher_arm(teacher, "plain")) or scores.get(
        teacher_arm(teacher, "elaborate")
    )
    if plain is None or plain.value is None:
        return {}
    return {
        name: plain.value - mine.value
        for name in recipe.students
        if (mine := scores.get(student_arm(name, "elaborate"))) and mine.value is not None
    }
