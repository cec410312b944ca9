"""How a report becomes one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stillhouse.report import wording
from stillhouse.report.ablation import (
    NOT_YET,
    changes_in_words,
    claim_in_words,
    gap_in_words,
    interval_in_words,
    spread_in_words,
)
from stillhouse.report.arms import MEASURES, in_words
from stillhouse.report.data import Ablations, RejectedRow, Samples, Sweep
from stillhouse.report.harness import score_in_words as score_told
from stillhouse.report.prompt_measures import share_of
from stillhouse.report.sweep import METRICS, STATES, score_in_words, short_keys, value_in_words
from stillhouse.report.text import clean, shown, size

if TYPE_CHECKING:  # matplotlib takes half a second to load, and not every page has a plot
    from stillhouse.report.drawing import Figure

HERE = Path(__file__).parent

MOST_SAMPLES = 80
"""Rows of one list on the page; the run has them all."""

MOST_BYTES = 120_000
"""Bytes of text of one list, so that the page can be mailed whatever the rows hold."""

QUESTION, ORIGINAL, RECIPE = 600, 2_000, 60_000
"""Characters that are shown of a question, a rejected row and a recipe."""

WORDS, ANYTHING = 32, 300
"""Characters that are shown of a short name in a list, and of any other text."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Listed:
    """The rows of a list that are on the page."""

    total: int
    rows: list[Any]


def page(environment: Environment, template: str, **values: Any) -> str:
    """Fill in a page's template; every page has `data`, with its provenance."""
    return environment.get_template(template).render(
        **values,
        origin=values["data"].provenance,
        limits={"question": QUESTION, "original": ORIGINAL, "recipe": RECIPE},
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704, our own file
    )


def environment(currency: str) -> Environment:
    """What turns the figures of all pages into words."""

    def money(amount: float | None) -> str:
        return wording.money(amount, currency)

    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.filters.update(
        arm_value=in_words,
        between=wording.between,
        changes=changes_in_words,
        claim=claim_in_words,
        count=wording.count,
        date=wording.date,
        days=wording.days,
        figure=_figure_html,
        gap=gap_in_words,
        gap_interval=interval_in_words,
        harness_score=score_told,
        measure=MEASURES.__getitem__,
        metric=METRICS.__getitem__,
        money=money,
        number=wording.number,
        percent=wording.percent,
        points=wording.signed_points,
        recipe_value=value_in_words,
        requests=wording.requests,
        score=score_in_words,
        short_keys=short_keys,
        shown=shown,
        spread=spread_in_words,
        state=STATES.__getitem__,
        whole=wording.whole,
        word=lambda text: cut(text, WORDS),
    )
    made.globals.update(
        share_of=share_of,
        inf=math.inf,
        not_yet=NOT_YET,
        plural=wording.plural,
        unknown=wording.UNKNOWN,
    )
    return made


def _finalize(value: Any) -> Any:
    """Every text that goes onto the page: without control characters, and not without end."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return clean(cut(value, ANYTHING))
    return value


def cut(text: str, limit: int) -> str:
    """The first characters of a text."""
    return text if len(text) <= limit else text[:limit] + "…"


def _figure_html(figure: Figure | None) -> Markup:
    """Both drawings of a plot; the style sheet shows one. Nothing where there is no plot."""
    if figure is None:
        return Markup("")
    drawing = Markup('<div class="plot {}" role="img" aria-label="{}">{}</div>')
    # The drawings come from matplotlib, which escapes the labels in them.
    wide, narrow = Markup(figure.wide), Markup(figure.narrow)  # noqa: S704
    alt = clean(figure.alt)
    return drawing.format("wide", alt, wide) + drawing.format("narrow", alt, narrow)


def listed(
    samples: Samples[Row], texts: Callable[[Row], Iterable[str]], group: Callable[[Row], str]
) -> Listed:
    """As many rows of a list as fit, the groups taking turns, so that none hides another."""
    groups: dict[str, list[Row]] = {}
    for row in samples.rows:
        groups.setdefault(group(row), []).append(row)
    turns = (row for turn in zip_longest(*groups.values()) for row in turn if row is not None)
    rows: list[Row] = []
    used = 0
    for row in islice(turns, MOST_SAMPLES):
        used += size(*texts(row))
        if rows and used > MOST_BYTES:
            break
        rows.append(row)
    return Listed(max(samples.total, len(rows)), rows)


def sweep_figures(sweep: Sweep | None) -> list[Figure]:
    """The plots of a sweep, where there is one."""
    if sweep is None:
        return []
    from stillhouse.report.sweep_figures import by_key  # loads matplotlib

    return by_key(sweep)


def ablation_figure(found: Ablations | None) -> Figure | None:
    """The plot of an ablation, where there is one."""
    if found is None:
        return None
    from stillhouse.report.ablation_figures import differences  # loads matplotlib

    return differences(found)


def rejected_texts(row: RejectedRow) -> Iterable[str]:
    """What a rejected row shows."""
    return (row.reason, row.stage, row.detail[:QUESTION], row.original[:ORIGINAL])
