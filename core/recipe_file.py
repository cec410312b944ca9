"""Reading a recipe: YAML with line numbers, profiles, `--set`, and errors that name the line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from core.errors import UseError
from core.recipe import LoadedRecipe, Recipe

YAML_MISTAKES = (yaml.YAMLError, ValueError, KeyError, AttributeError)
"""What PyYAML raises for a value that is not of its type: 2024-13-45, !!bool maybe, !!timestamp x.
"""

KeyPath = tuple[str | int, ...]
"""A key's place in the recipe: ("students", "minilm", "train", "epochs")."""


@dataclass
class _Document:
    """A recipe's plain data, and where each of its keys stands."""

    data: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """The place of a key, or of the nearest section around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.places[()]


def load_recipe(
    file: Path,
    model_of: Callable[[str], type[Recipe]],
    profile: str | None = None,
    settings: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
    *,
    variant: Mapping[str, Any] | None = None,
) -> LoadedRecipe:
    """Read a recipe, apply a profile, a trial's values, `--set` and a variant, and check it.

    Args:
        file: The YAML file.
        model_of: Gives the recipe model of a method's name; raises KeyError with the known names.
        profile: Name of an overlay under the file's own `profiles:`.
        settings: Changes such as `students.minilm.train.epochs=3`; values are YAML.
        values: Those of a sweep's trial, by the same keys.
        variant: What an ablation changes of all that, by the same keys.

    Raises:
        UseError: The first thing that is wrong, with its line, and what would be right.
    """
    document = _read(file)
    profiles = document.data.pop("profiles", {})
    _check_profiles(profiles, document)
    if profile is not None:
        if profile not in profiles:
            known = ", ".join(profiles) or "none"
            raise UseError(
                str(file), f"there is no profile '{profile}'.", f"It has these profiles: {known}."
            )
        _merge(document, profiles[profile], ("profiles", profile), ())
    for key, value in (values or {}).items():
        _put(document, key, value, f"sweep.space, {key} = {value!r}")
    for setting in settings:
        _set(document, setting)
    for key, value in (variant or {}).items():
        _put(document, key, value, f"{key} = {value!r}")

    method = document.data.get("method")
    try:
        model = model_of(method) if isinstance(method, str) else Recipe
    except KeyError as error:
        raise UseError(
            document.place(("method",)),
            f"there is no method '{method}'.",
            f"The methods are: {', '.join(error.args[0])}.",
        ) from None
    try:
        recipe = model.model_validate(document.data)
    except ValidationError as error:
        raise _explain(_first(error.errors(), document.data), document, model) from None
    loaded = LoadedRecipe(recipe=recipe, folder=file.parent.resolve())
    for key, name in recipe.files().items():
        if "://" in name:  # fetched when it is read
            continue
        _check_file(loaded.path(name), key, document)

    def place(key: str) -> str:
        return document.place(tuple(key.split(".")))

    return replace(loaded, recipe=recipe.with_prompts(loaded.folder, place))


def file_schema(model: type[Recipe]) -> dict[str, Any]:
    """The JSON Schema of a recipe file, for editors: the model's own, and `profiles` beside it."""
    schema = model.model_json_schema(by_alias=True)
    schema["properties"]["profiles"] = {
        "description": "Overlays by name: --profile NAME lays one over the recipe, key by key.",
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "propertyNames": {"enum": list(schema["properties"])},
        },
    }
    return schema


def _check_profiles(profiles: Any, document: _Document) -> None:
    if not isinstance(profiles, dict):
        raise UseError(
            document.place(("profiles",)),
            "'profiles' is no mapping of names to overlays.",
            "Write the keys that a profile changes under its name, or leave it out.",
        )
    for name, overlay in profiles.items():
        if not isinstance(overlay, dict):
            raise UseError(
                document.place(("profiles", name)),
                f"the profile '{name}' is no mapping of keys to values.",
                "Write the keys that it changes under it, or leave it out.",
            )


def _check_file(file: Path, key: str, document: _Document) -> None:
    place = document.place(tuple(key.split(".")))
    try:
        there, readable = file.is_file(), os.access(file, os.R_OK)
    except PermissionError:  # of a folder on the way
        there, readable = True, False
    if not there:
        raise UseError(
            place,
            f"{key} names a file that does not exist: {file}.",
            "Paths start from the recipe's folder.",
        )
    if not readable:
        raise UseError(
            place, f"{key} names a file that may not be read: {file}.", "Give yourself read access."
        )


def _read(file: Path) -> _Document:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UseError(str(file), "there is no such recipe.", "Check the path.") from None
    except IsADirectoryError:
        raise UseError(str(file), "this is a folder.", "Name a YAML file in it.") from None
    except PermissionError:
        raise UseError(str(file), "it may not be read.", "Give yourself read access.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UseError(
            f"{file}, line {line}", "this is not UTF-8 text.", "Save the file as UTF-8."
        ) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}, line {mark.line + 1}" if mark else str(file)
        raise UseError(place, f"this is not YAML: {error.problem}.", "Mend the syntax.") from None
    except yaml.YAMLError as error:
        raise UseError(str(file), f"this is not YAML: {error}.", "Mend the syntax.") from None
    except RecursionError:
        raise UseError(str(file), "it is nested too deeply.", "Make it flatter.") from None
    if not isinstance(root, yaml.MappingNode):
        raise UseError(
            str(file), "a recipe is a mapping of keys to values.", "Start from recipes/demo.yaml."
        )
    document = _Document({}, {(): str(file)})
    try:
        document.data = _construct(root, (), file, document.places)
    except RecursionError:
        raise UseError(str(file), "an alias stands within its own anchor.", "Mend it.") from None
    return document


def _construct(node: yaml.Node, path: KeyPath, file: Path, places: dict[KeyPath, str]) -> Any:
    """Build plain data from a YAML node and note the line of every key."""
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            place = f"{file}, line {key_node.start_mark.line + 1}"
            if key in mapping:
                raise UseError(place, f"'{key}' stands here twice.", "Keep one of the two.")
            places[(*path, key)] = place
            mapping[key] = _construct(value_node, (*path, key), file, places)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            places[(*path, index)] = f"{file}, line {item.start_mark.line + 1}"
            items.append(_construct(item, (*path, index), file, places))
        return items
    try:
        return yaml.SafeLoader("").construct_object(node)
    except YAML_MISTAKES:
        place = f"{file}, line {node.start_mark.line + 1}"
        raise UseError(
            place,
            f"'{node.value}' is no value that YAML has under {node.tag}.",
            "Put it in quotes, or leave the ! and what follows it out.",
        ) from None


def _merge(document: _Document, overlay: Any, source: KeyPath, target: KeyPath) -> None:
    """Lay an overlay over the document, key by key; a list or a plain value replaces the old."""
    here: Any = document.data
    for step in target:
        here = here[step]
    for key, value in overlay.items():
        path = (*target, key)
        document.places[path] = document.place((*source, key))
        if isinstance(value, dict) and isinstance(here.get(key), dict):
            _merge(document, value, (*source, key), path)
        else:
            here[key] = value
            # Everything below came from the overlay too.
            for known in [p for p in document.places if p[: len(source) + 1] == (*source, key)]:
                document.places[(*path, *known[len(source) + 1 :])] = document.places[known]


def _set(document: _Document, setting: str) -> None:
    key, equals, text = setting.partition("=")
    place = f"--set {setting}"
    if not equals or not key.strip():
        raise UseError(place, "this is not KEY=VALUE.", "Write --set students.NAME.train.epochs=3.")
    try:
        value = yaml.safe_load(text)
    except YAML_MISTAKES:
        raise UseError(place, "the value is not YAML.", "Quote it.") from None
    _put(document, key.strip(), value, place)


def _put(document: _Document, key: str, value: Any, place: str) -> None:
    """Give the value at a dotted key, whose line is `place` from here on."""
    steps: list[str | int] = [int(s) if s.isdecimal() else s for s in key.split(".")]
    here: Any = document.data
    for step in steps[:-1]:
        if isinstance(here, dict):
            here = here.setdefault(str(step), {})
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            raise UseError(place, f"there is no '{step}' to go into.", "Check the key.")
    last = steps[-1]
    if isinstance(here, list) and isinstance(last, int) and last < len(here):
        here[last] = value
    elif isinstance(here, dict):
        last = str(last)
        here[last] = value
    else:
        raise UseError(place, f"there is no '{last}' to set.", "Check the key.")
    document.places[tuple(str(s) if not isinstance(s, int) else s for s in steps)] = place


def _explain(error: ErrorDetails, document: _Document, model: type[BaseModel]) -> UseError:
    """Turn pydantic's first error into one message with the line, the key and the mend."""
    # Pydantic's path names the branch of a union too; the one in the file does not.
    model_path, path = error["loc"], _in_document(error, document.data)
    key = ".".join(str(step) for step in path) or "the recipe"
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, model_path[:-1])
        close = difflib.get_close_matches(str(path[-1]), known, n=1)
        mend = f"Did you mean '{close[0]}'?" if close else f"Known keys: {', '.join(known)}."
        return UseError(document.place(path), f"'{key}' is not a key that a recipe has.", mend)
    if error["type"] == "missing":
        return UseError(document.place(path), f"'{key}' is missing.", "Add it.")
    if error["type"] == "too_short" and path and path[-1] == "choices":
        return UseError(
            document.place(path),
            f"'{key}' has {len(error['input'])} choice(s); there is nothing to choose.",
            "Give at least two.",
        )
    cause = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], str | int | float):
        cause = f"it is {error['input']!r}. {cause}"
    mend = _description_at(model, model_path) or "Change it."
    if error["type"] == "string_type" and isinstance(error["input"], bool):
        mend = "YAML reads yes, no, on and off as true and false: put it in quotes."
    if error["type"] == "float_type" and (number := _as_yaml_number(error["input"])):
        mend = f"YAML reads {error['input']} as text: write {number}."
    return UseError(document.place(path), f"'{key}' is not right: {cause}.", mend)


def _first(errors: list[ErrorDetails], data: Any) -> ErrorDetails:
    """The first error; in a union, that of the branch whose type fits."""
    place = _in_document(errors[0], data)
    same = [e for e in errors if _in_document(e, data)[: len(place)] == place]
    return next((e for e in same if not e["type"].endswith("_type")), same[0])


def _in_document(error: ErrorDetails, data: Any) -> KeyPath:
    """Where an error is, without the steps of pydantic's that name a branch of a union."""
    path, missing = error["loc"], error["type"] == "missing"
    found: list[str | int] = []
    here = data
    for number, step in enumerate(path):
        if isinstance(here, dict) and (step in here or (missing and number == len(path) - 1)):
            here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            continue
        found.append(step)
    return tuple(found)


def _as_yaml_number(value: Any) -> str | None:
    """1e-4 as YAML 1.1 wants a number with an exponent, with point and sign: 1.0e-4."""
    parts = re.fullmatch(r"([+-]?\d+)(\.\d*)?[eE]([+-]?)(\d+)", str(value))
    if parts is None:
        return None
    whole, fraction, sign, exponent = parts.groups()
    return f"{whole}{fraction or '.0'}e{sign or '+'}{exponent}"


def _fields_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that the section at a path knows; empty where the path leads to none."""
    section = _section_at(model, path)
    return list(section.model_fields) if section else []


def _description_at(model: type[BaseModel], path: KeyPath) -> str:
    """What the key at a path means, as its model says."""
    section = _section_at(model, path[:-1])
    field = section.model_fields.get(str(path[-1])) if section and path else None
    return (field.description or "").replace("\n", " ") if field else ""


def _section_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    sections: list[type[BaseModel]] = [model]
    for step in path:
        fields = [s.model_fields[str(step)] for s in sections if str(step) in s.model_fields]
        branch = [s for s in sections if step in get_args(_annotation(s, "backend"))]
        if fields:
            sections = _sections_in(fields[0].annotation)
        elif branch:  # the step says which one of a union it is
            sections = branch
        # Otherwise it is a name or a number within a dict or list of the same section.
    return sections[0] if sections else None


def _annotation(section: type[BaseModel], field: str) -> Any:
    found = section.model_fields.get(field)
    return found.annotation if found else None


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field holds: by themselves, optional, in a union, a dict or a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]
