"""Input files on an object store, as files on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from pyarrow import fs

from core.errors import UseError, WorkError
from core.identity import content_id
from core.models import cache_folder, make_cache
from core.run import open_url


def fetched_file(url: str) -> Path:
    """A file of an object store, in the cache; fetched where it is not there yet or has changed.

    Args:
        url: Such as s3://bucket/rows.parquet.

    Raises:
        UseError: There is no such file.
        WorkError: It could not be fetched.
    """
    system, path = open_url(url)
    try:
        found = system.get_file_info(path)
        if not found.is_file:
            raise UseError(url, "there is no such file.", "Check the URL.")
        key = content_id(url, found.size, found.mtime_ns)
        target: Path = cache_folder() / "files" / key / found.base_name
        if not target.exists():
            make_cache(target.parent)
            part = target.with_name(f".{found.base_name}.part{os.getpid()}")
            local = fs.LocalFileSystem()
            fs.copy_files(path, str(part), source_filesystem=system, destination_filesystem=local)
            part.replace(target)
    except OSError as error:
        cause = f"it could not be fetched: {error}."
        raise WorkError(url, cause, "Check the network, and who may read it.") from error
    return target
