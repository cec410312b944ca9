"""What the licences of a student's teachers and of its base ask of who publishes it.

The table is `licences.yaml`; each of its terms names the clause and the day on which it was read.
None of it is legal advice.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field

from core.embedded import EMBEDDED_MODELS
from core.models import EMBEDDED, is_hub_id
from core.recipe_section import Section
from core.run import Folder

Use = Literal["outputs", "weights"]
"""What a student has of another model: it was trained on its outputs, or started from its weights.
"""

FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
"""The YAML at the head of a model card."""

STATED = ("license", "license_name")
"""Where a card says which licence its model has; the second where the hub has no word for it."""

HUB_SECONDS = 10.0
"""How long the hub may take to say what a model's licence is."""


class Term(Section):
    """One thing that a licence asks."""

    of: list[Use] = Field(min_length=1)
    """What it is asked for."""
    say: str
    """The term in our words."""
    clause: str
    """Where it stands."""
    quote: str
    """The phrase that it hangs on."""
    forbids: bool = False
    """Whether it can forbid the student itself."""
    begins: str | None = None
    """What the student's name must begin with; a dash stands for a blank."""
    shows: str | None = None
    """What the card must display."""
    notice: str | None = None
    """What the file NOTICE must say."""


class Licence(Section):
    """A licence, or an endpoint's terms of service."""

    name: str
    """What it calls itself."""
    hub: str | None = None
    """The hub's word for it, where the hub has one."""
    permissive: bool = False
    """Whether a student may come under other terms than these."""
    said: list[str] = []
    """Other words that models' cards have for it, in lower case."""
    url: str
    """Where its text is."""
    version: str
    """Which version the terms are from."""
    read: date
    """The day on which they were read."""
    seen: str
    """What was read: the text, or quotations of it."""
    names: list[str] = []
    """Regular expressions of models' names that most likely come under it, whatever the case."""
    hosts: list[str] = []
    """Hosts of endpoints that come under it."""
    terms: list[Term]


class _Table(Section):
    """The file."""

    licences: dict[str, Licence]


@functools.cache
def licences() -> dict[str, Licence]:
    """The table, by the words that recipes of cards have for licences."""
    file = Path(__file__).parent / "licences.yaml"
    return _Table.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))).licences


@dataclass(frozen=True)
class Source:
    """A model that a student was made from, and the licence that it comes under."""

    name: str
    """Of the teacher in the recipe; `base` of the model that the student started from."""
    model: str
    use: Use
    licence: str | None
    """Its word in the table; None where it is unknown, or not in the table."""
    how: str
    """How the licence was found, in words for a person."""

    @property
    def terms(self) -> list[Term]:
        """What is asked for this use."""
        if self.licence is None:
            return []
        return [term for term in licences()[self.licence].terms if self.use in term.of]


def find_source(name: str, model: str, use: Use, address: str | None = None) -> Source:
    """Find out what a model's licence is: what it says of itself, and then what its name tells.

    Args:
        name: What the recipe calls it.
        model: As a recipe names it.
        use: What the student has of it.
        address: Of the endpoint that it answers behind, if any.
    """
    if model.startswith(EMBEDDED):
        embedded = EMBEDDED_MODELS.get(model.removeprefix(EMBEDDED))
        said = embedded.licence if embedded else None
        return Source(name, model, use, _known(said), "it comes with Stillhouse")
    host = urlsplit(address).hostname if address else None
    served = next((word for word, licence in licences().items() if host in licence.hosts), None)
    if served is not None:
        return Source(name, model, use, served, f"it is served by {host}")
    card = _card(model)
    stated = [card[key] for key in STATED if isinstance(card.get(key), str)]
    for word in stated:
        if (known := _known(word)) is not None:
            return Source(name, model, use, known, "its model card says so")
    if stated:
        told = f"its model card says '{stated[-1]}', which is not in the table of licences"
        return Source(name, model, use, None, told)
    guess = _by_name(model)
    how = "a guess by its name" if guess else "nothing states it, and its name tells nothing"
    return Source(name, model, use, guess, how)


def _known(said: str | None) -> str | None:
    """The table's word for what somebody says."""
    word = (said or "").strip().lower()
    for known, licence in licences().items():
        if word in (known, licence.name.lower(), *licence.said):
            return known
    return None


def _by_name(model: str) -> str | None:
    for word, licence in licences().items():
        if any(re.search(name, model, re.IGNORECASE) for name in licence.names):
            return word
    return None


def _card(model: str) -> dict[str, Any]:
    """The metadata of a model's card; empty where there is none, or nobody can ask for it."""
    if "://" in model or Path(model).is_dir():
        folder = Folder(model)
        if not folder.has("README.md"):
            return {}
        return front_matter(folder.read("README.md").decode("utf-8", "replace"))
    if not is_hub_id(model):
        return {}
    from httpx2 import HTTPError
    from huggingface_hub import model_info

    try:
        data = model_info(model, timeout=HUB_SECONDS).card_data
    except (HTTPError, OSError):  # offline, no such model, or one that wants a login
        return {}
    return {key: data.get(key) for key in STATED} if data else {}


def front_matter(card: str) -> dict[str, Any]:
    """The YAML at the head of a model card; empty where there is none, or it is broken."""
    found = FRONT_MATTER.match(card)
    try:
        data = yaml.safe_load(found.group(1)) if found else None
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


@dataclass(frozen=True)
class OwnLicence:
    """What a student's card says of its licence."""

    word: str
    """The hub's word; `other` where it has none for all that binds the student."""
    name: str | None = None
    """With `other`: a name."""
    url: str | None = None
    """With `other`: where the text is; None where there are several."""


def own_licence(sources: Iterable[Source]) -> OwnLicence:
    """The licence that a student comes under, by those of all that it was made from."""
    table = licences()
    # What binds nobody who trains on outputs has no say in the student.
    binding = [s for s in sources if s.licence is None or s.terms or s.use == "weights"]
    if any(source.licence is None for source in binding):
        return OwnLicence("other", "undetermined")
    words = list(dict.fromkeys(source.licence for source in binding if source.licence))
    strict = [word for word in words if not table[word].permissive]
    words = strict or [s.licence for s in binding if s.licence and s.use == "weights"]
    if len(words) > 1:
        return OwnLicence("other", "several")
    licence = table[words[0]]
    if licence.hub is not None:
        return OwnLicence(licence.hub)
    return OwnLicence("other", words[0], licence.url)


def notice(sources: Iterable[Source]) -> str | None:
    """The content of the file NOTICE; None where no licence asks for one."""
    texts = [term.notice for source in sources for term in source.terms if term.notice]
    return "\n\n".join(dict.fromkeys(texts)) + "\n" if texts else None


def shown(sources: Iterable[Source]) -> list[str]:
    """The phrases that the card must display."""
    phrases = [term.shows for source in sources for term in source.terms if term.shows]
    return list(dict.fromkeys(phrases))


@dataclass(frozen=True)
class Objection:
    """Why a student may not be published as it is, until a person says that it may."""

    cause: str
    mend: str


def objections(sources: Iterable[Source], name: str, *, public: bool) -> list[Objection]:
    """What stands against publishing a student.

    Args:
        sources: What it was made from.
        name: What it would be called.
        public: Whether everybody would see it; who shares it with nobody may ask later what an
            unknown licence says.
    """
    found = []
    for source in sources:
        of = f"{source.model} ({source.name})"
        if source.licence is None and public:
            found.append(
                Objection(f"the licence of {of} is unknown: {source.how}", "Find out what it asks.")
            )
        for term in source.terms:
            assert source.licence is not None, "it has terms"
            where = f"{licences()[source.licence].name}, {term.clause}"
            if term.begins and not name.replace("_", "-").startswith(term.begins):
                mend = f"Call it {term.begins}-{name}."
                found.append(Objection(f"{of}: {term.say} ({where})", mend))
            if term.forbids:
                mend = f"Read {licences()[source.licence].url}."
                found.append(Objection(f"{of}: {term.say} ({where})", mend))
    return list(dict.fromkeys(found))
