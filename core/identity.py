"""Content hashes: the ids of rows and the fingerprints of stages.

Everything that decides an outcome goes into a hash and nothing else does, so that the same work
has the same name on every machine and on every day.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from core.errors import UseError

ID_LENGTH = 32  # hexadecimal characters, 128 bits: no collision to fear below 10^15 rows


def content_id(*parts: Any) -> str:
    """Hash JSON-like parts into a stable id of `ID_LENGTH` hexadecimal characters.

    Keys are sorted and text is normalised to UTF-8, so that equal content has equal ids whatever
    the order in which a dictionary was filled.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # surrogatepass: a lone surrogate in a bad row must get an id too, or it could not be rejected.
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:ID_LENGTH]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        UseError: The file may not be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except PermissionError:
        raise UseError(str(path), "it may not be read.", "Give yourself read access.") from None


def folder_digest(folder: Path) -> str:
    """Hash every file below a folder, by name and content: the revision of a local model."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return content_id([(str(path.relative_to(folder)), file_digest(path)) for path in files])
