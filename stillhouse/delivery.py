"""Ways of bringing a student to a place, so that it appears there whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from pyarrow import fs

from core.errors import UseError, WorkError
from core.run import Folder, explain_write, open_url
from stillhouse.model_card import RECIPE

Parcel = dict[str, Path | bytes]
"""Files by their names, in the order in which they are written: the recipe first, the card last."""

CARD = "README.md"

ELSEWHERE = "Choose another place."

WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Ends of files that loaders might take for the student's."""


def write_folder(parcel: Parcel, place: str) -> str:
    """Write to a folder of this machine, which appears with all that is in it.

    Raises:
        UseError: Something is there already.
        WorkError: It could not be written.
    """
    target = Path(place).absolute()
    part = target.with_name(f".{target.name}.part")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise _taken(place)
        shutil.rmtree(part, ignore_errors=True)  # of an export that was killed
        part.mkdir(parents=True)
        try:
            for name, content in parcel.items():
                _put(Folder(str(part)), name, content)
            part.rename(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as error:
        raise explain_write(place, error, ELSEWHERE) from error
    return str(target)


def write_store(parcel: Parcel, place: str) -> str:
    """Write to an object store, which has no renaming: without its card the student is not whole.

    Raises:
        UseError: Something is there already.
        WorkError: It could not be written.
    """
    system, path = open_url(place)
    folder = Folder(place)
    try:
        there = [
            info.path.removeprefix(f"{path}/")
            for info in system.get_file_info(
                fs.FileSelector(path, allow_not_found=True, recursive=True)
            )
            if info.is_file
        ]
        if CARD in there or (there and RECIPE not in there):
            raise _taken(place)
        for name in there:  # of an export that was killed, and perhaps of another student
            system.delete_file(f"{path}/{name}")
        for name, content in parcel.items():
            _put(folder, name, content)
    except OSError as error:
        raise explain_write(place, error, ELSEWHERE) from error
    return place


def _put(folder: Folder, name: str, content: Path | bytes) -> None:
    *below, last = name.split("/")
    target = folder.child(*below)
    if isinstance(content, bytes):
        target.write(last, content)
    else:
        target.copy_in(last, content)


def _taken(place: str) -> UseError:
    return UseError(place, "something is there already.", "Name another place, or delete it.")


def push_to_hub(parcel: Parcel, repository: str, *, public: bool) -> str:
    """Publish on the hub, in one commit. The token is HF_TOKEN's, or that of the hub's own login.

    Args:
        parcel: What is pushed.
        repository: OWNER/NAME; made where it is not there yet.
        public: Whether everybody may see it. One that is there already must be as this says.

    Returns:
        The address of the model.

    Raises:
        UseError: The hub does not let this be done.
        WorkError: It could not be reached, or failed.
    """
    from httpx2 import HTTPError
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    place = f"hf://{repository}"
    api = HfApi(library_name="stillhouse")
    try:
        url = api.create_repo(repository, private=not public, exist_ok=True)
        info = api.model_info(repository)
        if bool(info.private) == public:
            raise _seen_otherwise(place, public=public)
        there = [file.rfilename for file in info.siblings or []]
        # Loaders would take the old weights where the new ones are divided into other files.
        stale = [name for name in there if name.endswith(WEIGHTS) and name not in parcel]
        api.create_commit(
            repository,
            [
                *(CommitOperationDelete(name) for name in stale),
                *(CommitOperationAdd(name, content) for name, content in parcel.items()),
            ],
            commit_message="Export a student from its run",
        )
    except OfflineModeIsEnabled:
        raise UseError(place, "HF_HUB_OFFLINE is set.", "Unset it to push.") from None
    except HFValidationError as error:
        raise UseError(place, f"the hub has no such names: {error}.", ELSEWHERE) from None
    except HfHubHTTPError as error:
        raise _hub_refused(place, error.response.status_code) from error
    except (HTTPError, RuntimeError) as error:  # the latter of an upload that broke off
        cause = f"the hub could not be reached, or broke off: {type(error).__name__}."
        raise WorkError(place, cause, "Try again later: nothing was changed there.") from error
    return str(url)


def _seen_otherwise(place: str, *, public: bool) -> UseError:
    if public:
        return UseError(
            place, "it is there and private.", "Make it public there first, or leave out --public."
        )
    return UseError(place, "it is there, for everybody to see.", "--public says that you mean it.")


def _hub_refused(place: str, status: int) -> UseError | WorkError:
    if status in (401, 403, 404):
        mend = "Set HF_TOKEN to a token that may write there, or run `hf auth login`."
        return UseError(place, f"the hub does not let you in (status {status}).", mend)
    return WorkError(place, f"the hub failed (status {status}).", "Try again later.")
