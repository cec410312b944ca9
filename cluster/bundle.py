"""The recipe and its input files on their way to the cluster.

A ConfigMap holds them where they are small. Larger files go to the object store that the runs are
kept in, under names that follow from their content, and the recipe names them there.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from cluster.naming import object_name, recipe_labels
from cluster.objects import ConfigMap, KeyToPath, Metadata
from cluster.sizes import cluster_of
from core.errors import UseError
from core.identity import file_digest
from core.recipe import LoadedRecipe
from core.run import Folder

CONFIG_MAP_BYTES = 700 * 1024
"""Of all files in a ConfigMap; Kubernetes takes 1 MiB of text, and base64 adds a third to what is
none."""

RECIPE_FILE = "recipe.yaml"


@dataclass(frozen=True)
class Upload:
    """A file that must be on the object store before the job runs."""

    file: Path
    folder: Folder
    """Where it goes; its name stays."""

    @property
    def url(self) -> str:
        """Where it is then."""
        return f"{self.folder.location}/{self.file.name}"

    def put(self) -> bool:
        """Bring it there, where it is not there yet; says whether it was brought.

        Raises:
            StillhouseError: It cannot be written there.
        """
        if self.folder.has(self.file.name):
            return False
        self.folder.copy_in(self.file.name, self.file)
        return True


@dataclass(frozen=True)
class Bundle:
    """A recipe with all that it needs, as the cluster gets it."""

    config_map: ConfigMap
    items: list[KeyToPath]
    """Where each of its keys is mounted."""
    uploads: list[Upload]


def bundle(loaded: LoadedRecipe) -> Bundle:
    """Pack a recipe.

    Raises:
        UseError: Its files are too large, and there is no object store to put them into.
    """
    recipe = loaded.recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    texts, others = {}, {}
    items = [KeyToPath(key=RECIPE_FILE, path=RECIPE_FILE)]
    uploads = []
    room = CONFIG_MAP_BYTES
    for key, name in sorted(loaded.recipe.files().items(), key=lambda at: _size(loaded, at[1])):
        if "://" in name:
            continue
        file = loaded.path(name)
        if (size := _size(loaded, name)) > room:
            upload = _upload(loaded, key, file)
            uploads.append(upload)
            _put(recipe, key, upload.url)
            continue
        room -= size
        place = _place(name, file)
        _put(recipe, key, place)
        item = KeyToPath(key=f"file-{len(items)}", path=place)
        items.append(item)
        content = file.read_bytes()
        try:
            texts[item.key] = content.decode()
        except UnicodeDecodeError:
            others[item.key] = base64.b64encode(content).decode()
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
    name = object_name(loaded.recipe.name, "-recipe")
    return Bundle(
        ConfigMap(
            metadata=Metadata(
                name=name,
                namespace=cluster_of(loaded).namespace,
                labels=recipe_labels(loaded.recipe.name),
            ),
            data={RECIPE_FILE: text, **texts},
            binary_data=others or None,
        ),
        items,
        uploads,
    )


def _size(loaded: LoadedRecipe, name: str) -> int:
    return 0 if "://" in name else loaded.path(name).stat().st_size


def _upload(loaded: LoadedRecipe, key: str, file: Path) -> Upload:
    storage = cluster_of(loaded).storage
    if storage is None:
        raise UseError(
            key,
            f"{file} is larger than a ConfigMap takes, and the runs are on a volume.",
            "Set cluster.storage, where it is put for you, or write an object-store URL here.",
        )
    # Named by its content: a file that changed is another one, and the run notices.
    return Upload(file, Folder(storage).child("files", file_digest(file)[:16]))


def _place(name: str, file: Path) -> str:
    """Where a file is mounted, relative to the recipe: as here, unless that is outside of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return f"files/{file_digest(file)[:16]}/{file.name}"
    return str(path)


def _put(here: Any, key: str, value: str) -> None:
    """Set the value at a dotted key; the names of teachers may hold dots, too."""
    if isinstance(here, list):
        here[int(key)] = value
    elif key in here:
        here[key] = value
    else:
        step = max((name for name in here if key.startswith(f"{name}.")), key=len)
        _put(here[step], key[len(step) + 1 :], value)
