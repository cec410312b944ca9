"""Where a model comes from: `embedded://NAME`, a local folder, an object store or a hub id."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from pathlib import Path

from pyarrow import fs

from core.errors import UseError, WorkError
from core.identity import content_id, file_digest, folder_digest
from core.recipe import LoadedRecipe
from core.recipe_teachers import EndpointTeacher, RecordedTeacher
from core.run import explain_write, open_url
from core.spacy_pipelines import SPACY, pipeline_revision

EMBEDDED = "embedded://"

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What a LoRA adapter consists of. Other weight files can be pickles, and are not loaded."""


def cache_folder() -> Path:
    """Where converted and fetched models are kept: $STILLHOUSE_CACHE, or ~/.cache/stillhouse."""
    return Path(os.environ.get("STILLHOUSE_CACHE", Path.home() / ".cache" / "stillhouse"))


def make_cache(folder: Path) -> None:
    """Make a folder of the cache, where it is not there yet, to write into it.

    Raises:
        StillhouseError: It cannot be made, or not be written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        elsewhere = "Set STILLHOUSE_CACHE to a folder that you may write to."
        raise explain_write(str(folder), error, elsewhere) from error


def model_folder(name: str) -> Path:
    """A model as a Hugging Face folder on this machine, made or fetched where it is not there yet.

    Args:
        name: `embedded://NAME`, a local folder, a URL such as s3://bucket/model, or a hub id.

    Raises:
        UseError: There is no such model.
        WorkError: It could not be fetched.
    """
    if name.startswith(EMBEDDED):
        from core.embedded import embedded_folder

        return embedded_folder(name.removeprefix(EMBEDDED), cache_folder())
    if "://" in name:
        return _fetch_folder(name)
    if Path(name).is_dir():
        return Path(name).resolve()
    if is_hub_id(name):
        return _fetch_from_hub(name)
    raise UseError(
        f"model '{name}'",
        "it is neither an embedded model, nor a folder, a URL or a hub id.",
        "Write embedded://NAME, a path, s3://..., or owner/name.",
    )


def config_folder(name: str) -> Path:
    """A folder with a model's config.json: all that is wanted of a model that is not loaded.

    Args:
        name: As of a model; of one on a hub that file alone is fetched.

    Raises:
        UseError: There is no such model.
        WorkError: It could not be fetched.
    """
    if "://" in name or Path(name).is_dir() or not is_hub_id(name):
        return model_folder(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "config.json")).parent
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _hub_failed(name, error) from error


def adapter_folder(name: str) -> Path:
    """A LoRA adapter as a folder on this machine, as PEFT writes it.

    Args:
        name: As of a model.

    Raises:
        UseError: There is none, or it is not in safetensors.
        WorkError: It could not be fetched.
    """
    folder = model_folder(name)
    missing = [file for file in ADAPTER_FILES if not (folder / file).is_file()]
    if missing:
        raise UseError(
            f"adapter '{name}'",
            f"{' and '.join(missing)} is not in it.",
            "Save it with PEFT's save_pretrained, which writes both.",
        )
    return folder


@functools.cache
def model_revision(name: str) -> str:
    """A hash of the model's files: what a row's id says about the model that made it.

    Asked for once a process: every stage that names a model wants it, and hashing takes seconds a
    gigabyte. All of one command's rows then tell of the same revision, too; a folder that changes
    under a run is found by the next command.
    """
    if name.startswith(EMBEDDED):
        from core.embedded import embedded_revision

        return embedded_revision(name.removeprefix(EMBEDDED))
    if name.startswith(SPACY):
        return pipeline_revision(name.removeprefix(SPACY))
    if not Path(name).is_dir() and is_hub_id(name):
        return _hub_commit(name)
    return folder_digest(model_folder(name))


def teacher_revision(name: str, loaded: LoadedRecipe) -> str:
    """What a row's id says about who answered it.

    Of a model its files, of an endpoint its address and model, of recorded answers the files that
    hold them and how they are read.

    Args:
        name: The teacher's name in the recipe.
        loaded: The recipe.
    """
    teacher = loaded.recipe.teachers[name]
    if isinstance(teacher, EndpointTeacher):
        return content_id(teacher.base_url, teacher.api, teacher.model)
    if isinstance(teacher, RecordedTeacher):
        digests = [_record_digest(loaded.path(file)) for file in teacher.files]
        return content_id(teacher.columns.model_dump(), digests)
    revision = model_revision(teacher.model)
    if teacher.adapter is None:
        return revision
    return content_id(revision, model_revision(teacher.adapter))


@functools.cache
def _record_digest(file: Path) -> str:
    """A file's digest, asked for once a process as a model's is: such a file may be large."""
    return file_digest(file)


def _fetch_folder(url: str) -> Path:
    target = cache_folder() / "fetched" / content_id(url)
    if not target.is_dir():
        system, path = open_url(url)
        make_cache(target.parent)
        part = target.with_suffix(f".part{os.getpid()}")
        try:
            fs.copy_files(path, str(part), source_filesystem=system)
        except OSError as error:
            raise WorkError(f"model '{url}'", f"it could not be fetched: {error}.", "") from error
        part.rename(target)
    return target


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub's: owner/name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def _fetch_from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # Only safetensors: a pickle can run code when it is loaded.
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _hub_failed(name, error) from error


def _hub_commit(name: str) -> str:
    """The commit of a hub model that is here, or else of the one that the hub would give."""
    from huggingface_hub import model_info, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        return Path(cached).parent.name
    try:
        return str(model_info(name).sha)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise _hub_failed(name, error) from error


def _hub_failed(name: str, error: Exception) -> WorkError:
    return WorkError(
        f"model '{name}'",
        f"the hub did not give it: {type(error).__name__}.",
        "Check the name, the network and HF_TOKEN, or name a local folder.",
    )
