"""A page to try a student beside its teacher: off unless asked for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

ROUTE = "/try"
"""Where the page is."""


@dataclass(frozen=True)
class Side:
    """A model on the page."""

    name: str
    """As requests name it."""
    role: str
    """`student` or `teacher`."""
    cost: str
    """What a request costs, in words."""


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    title: str
    asks: str
    """What an input is, such as `Headline`."""
    choices: list[str] | None
    """What is chosen from; None where every question brings its own."""
    characters: int
    """Of an input at most."""
    needs_key: bool
    sides: list[Side]
    """The student, and its teacher where that is served too."""
    note: str
    """Where the costs come from."""


def render(page: Page) -> str:
    """The page as one HTML document that asks the endpoint which it came from, and nobody else."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Inside a script element nothing is unescaped again; what could end it is written otherwise.
    data = json.dumps(asdict(page)).replace("<", "\\u003c")
    return environment.get_template("page.html.j2").render(page=page, data=Markup(data))  # noqa: S704
