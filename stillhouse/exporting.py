"""`stillhouse export`: a finished student out of its run, with a card, to wherever it is wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.errors import UseError
from core.licences import Source, licences, notice, objections
from core.models import model_folder
from core.recipe import StudentRecipe
from core.run import Run
from stillhouse.card_data import CardData, gather_card
from stillhouse.delivery import Parcel, push_to_hub, write_folder, write_store
from stillhouse.gather import StudentReader
from stillhouse.model_card import RECIPE, model_card
from stillhouse.workflow import recipe_of, refuse_without_student, trained_student

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Ends of files that can run code when they are loaded."""

HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)/?")


@dataclass(frozen=True)
class Exported:
    """What an export did."""

    places: list[str]
    """Where the student is now."""
    warnings: list[str]
    """What who publishes it must know."""


def export_student(
    run: Run,
    student: str | None,
    to: str | None,
    push: str | None,
    *,
    public: bool = False,
    accept_terms: bool = False,
) -> Exported:
    """Write a student to a folder or an object store, publish it, or both.

    Args:
        run: Where it was trained.
        student: Its name; the recipe's first if absent.
        to: A folder, or an object store's URL; without `push` a folder of its own if absent.
        push: `hf://OWNER/NAME`, or an object store's URL.
        public: Whether everybody may see it on the hub.
        accept_terms: Whether a person says that it may be published.

    Raises:
        UseError: It cannot be taken out, or not be published so.
        WorkError: It could not be written.
    """
    refuse_without_student(run, "has nothing to export")
    repository = _repository(push, public=public)
    name, trained = trained_student(run, student)
    files = _files(model_folder(trained.folder.child("student").location))
    data = gather_card(StudentReader(run, student=name))
    if repository is not None and not accept_terms:
        _refuse_objections(data.sources, repository, public=public)
    if to is None and push is None:
        to = f"{data.report.name}-{name}"
    places = []
    for place in (to, push if repository is None else None):
        if place is not None:
            write = write_store if "://" in place else write_folder
            places.append(write(_parcel(run, files, data, _last_name(place)), place))
    if repository is not None:
        parcel = _parcel(run, files, data, repository)
        places.append(push_to_hub(parcel, repository, public=public))
    return Exported(places, _warnings(data.sources))


def card_of(run: Run, student: str) -> str:
    """A student's model card; empty where its run's method writes none."""
    if not isinstance(recipe_of(run).recipe, StudentRecipe):
        return ""
    _, trained = trained_student(run, student)
    files = _files(model_folder(trained.folder.child("student").location))
    data = gather_card(StudentReader(run, student=student))
    return str(_parcel(run, files, data, student)["README.md"], "utf-8")  # type: ignore[arg-type]


def _repository(push: str | None, *, public: bool) -> str | None:
    """The hub's name of where to push; None where that is no hub."""
    if push is None or not push.startswith("hf://"):
        if public:
            raise UseError("--public", "it is for --push hf://OWNER/NAME alone.", "Leave it out.")
        if push is not None and "://" not in push:
            raise UseError(
                f"--push {push}", "this is no place to publish to.", "Write a folder as --to."
            )
        return None
    found = HUB.fullmatch(push)
    if found is None:
        raise UseError(f"--push {push}", "this is no name of a model.", "Write hf://OWNER/NAME.")
    return found.group(1)


def _files(folder: Path) -> dict[str, Path]:
    """A student's own files, by their names in its folder.

    Raises:
        UseError: Its weights are not in safetensors alone.
    """
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    pickles = [name for name in found if name.lower().endswith(PICKLES)]
    if pickles:
        raise UseError(
            str(folder),
            f"{', '.join(pickles)} can hold pickles, which run code when they are loaded.",
            "Save the student in safetensors where you trust it, and delete these.",
        )
    if not any(name.endswith(".safetensors") for name in found):
        raise UseError(str(folder), "it has no weights in safetensors.", "Train it again.")
    return found


def _parcel(run: Run, files: dict[str, Path], data: CardData, name: str) -> Parcel:
    """All that goes to a place: the recipe, by which an unfinished export is known, comes first."""
    config = json.loads(files["config.json"].read_text(encoding="utf-8"))
    tokenizer = files.get("tokenizer_config.json")
    chat = "chat_template.jinja" in files or (
        tokenizer is not None
        and "chat_template" in json.loads(tokenizer.read_text(encoding="utf-8"))
    )
    told = notice(data.sources)
    card = model_card(data, config, name, chat=chat)
    return {
        RECIPE: run.folder.read("recipe.yaml"),
        **{path: file for path, file in files.items() if path != "README.md"},
        **({"NOTICE": told.encode()} if told else {}),
        "README.md": card.encode(),
    }


def _last_name(place: str) -> str:
    return PurePosixPath(place).name if "://" in place else Path(place).absolute().name


def _refuse_objections(sources: Sequence[Source], repository: str, *, public: bool) -> None:
    found = objections(sources, PurePosixPath(repository).name, public=public)
    if found:
        raise UseError(
            f"--push hf://{repository}",
            "; ".join(objection.cause.rstrip(".") for objection in found) + ".",
            " ".join(dict.fromkeys(objection.mend for objection in found))
            + " --accept-terms says that a person has read the terms and takes this on.",
        )


def _warnings(sources: Sequence[Source]) -> list[str]:
    table = licences()
    told = []
    for source in sources:
        of = f"{source.name} ({source.model})"
        if source.licence is None:
            told.append(f"{of}: unknown licence, {source.how}. Find out before you publish.")
        elif source.terms and not table[source.licence].permissive:
            licence = table[source.licence]
            told.append(f"{of}: {licence.name} binds the student ({source.how}). See the card.")
    return told
