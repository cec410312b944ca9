"""`stillhouse key`: writes the file of API key hashes that endpoints read."""

from __future__ import annotations

from pathlib import Path

import yaml

from core.errors import UseError
from core.run import Folder
from serving.keys import KeyFile, hash_of, new_key, read_keys


def add_key(file: Path, name: str, requests_per_minute: int | None) -> str:
    """Make a key and put its hash into the file.

    Args:
        file: Made where it is not there yet.
        name: Of who will use it; no other key has it.
        requests_per_minute: How often it may be used; None for any number.

    Returns:
        The key, which stands nowhere else.

    Raises:
        UseError: The file cannot be read, or the name is taken or none.
    """
    found = _read(file)
    if name in [key.name for key in found.keys]:
        raise UseError(
            f"{file}, {name}", "there is a key of this name.", "Choose another name, or revoke it."
        )
    key = new_key()
    made: dict[str, object] = {
        "name": name,
        "sha256": hash_of(key),
        "requests_per_minute": requests_per_minute,
    }
    _write(file, [*(key.model_dump() for key in found.keys), made])
    return key


def revoke_key(file: Path, name: str) -> None:
    """Mark a key as revoked: endpoints refuse it within seconds.

    Raises:
        UseError: There is none of this name.
    """
    found = _read(file)
    if name not in [key.name for key in found.keys]:
        known = ", ".join(key.name for key in found.keys) or "none"
        raise UseError(f"{file}, {name}", "there is no such key.", f"There are: {known}.")
    _write(
        file,
        [key.model_dump() | {"revoked": key.revoked or key.name == name} for key in found.keys],
    )


def _read(file: Path) -> KeyFile:
    if not file.exists():
        return KeyFile(keys=[])
    return read_keys(file.read_text(encoding="utf-8"), str(file))


def _write(file: Path, keys: list[dict[str, object]]) -> None:
    kept = [{name: value for name, value in key.items() if value} for key in keys]
    text = yaml.safe_dump({"keys": kept}, sort_keys=False)
    read_keys(text, str(file))  # a name that is none is told before anything is written
    Folder(str(file.absolute().parent)).write(file.name, text.encode())
