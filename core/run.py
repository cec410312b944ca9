"""A run: a folder, local or on object storage, in which every stage commits by a manifest.

    recipe.yaml                       the resolved recipe
    prices.yaml                       the price book
    stopped-by-budget.json            the budget that has stopped it, where one has
    run.json                          what each stage was made from, for `status` and the report
    stages/<stage>/<work>/rows/       one Parquet file per committed shard
    stages/<stage>/<work>/rejected/   rows that the shard could not use
    stages/<stage>/<work>/plan/       rows to be answered, while the stage is not done
    stages/<stage>/<work>/manifest.json
    sweep.json                        the trials of a sweep, and which of them was the best
    ablations.json                    the variants of an ablation, and what they came to
    ledger/<stage>.<attempt>.json     what every attempt used
    logs/                             other libraries' output

`<work>` is the fingerprint of what decides each row (prompts, model revision, sampling), not of
how many rows are wanted: more rows later re-use the ones that are there. So a folder may be done
for several numbers of rows, and keeps a manifest for each. A shard is committed when its rows file
has its final name, which it gets in one atomic step.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from core.errors import StillhouseError, UseError, WorkError
from core.rows import REJECTED

WORK_LENGTH = 12
"""Characters of a fingerprint that name its folder, and another number of rows' manifest in it."""

MANIFEST = "manifest.json"


def open_url(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URL, and the path in it.

    Raises:
        UseError: No file system has such URLs.
    """
    try:
        system, path = fs.FileSystem.from_uri(url)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UseError(
            url,
            f"this is no place that can be opened: {str(error).splitlines()[0]}.",
            "Write a path, or a URL such as s3://bucket/folder.",
        ) from None
    return system, path


@dataclass(frozen=True)
class Folder:
    """A folder on any pyarrow file system. Writes appear whole or not at all."""

    location: str
    """A local path, or a URL such as s3://bucket/runs/demo."""

    def __post_init__(self) -> None:
        if "://" not in self.location:
            object.__setattr__(self, "location", str(Path(self.location).absolute()))

    @property
    def local(self) -> Path | None:
        """The path on this machine, or None on object storage."""
        return None if "://" in self.location else Path(self.location)

    def child(self, *names: str) -> Folder:
        """The folder below this one."""
        return Folder("/".join((self.location.rstrip("/"), *names)))

    def _open(self) -> tuple[fs.FileSystem, str]:
        if self.local is not None:
            return fs.LocalFileSystem(), self.location
        return open_url(self.location)

    def make(self) -> None:
        """Make the folder where it is not there yet."""
        system, path = self._open()
        try:
            system.create_dir(path, recursive=True)
        except OSError as error:
            raise explain_write(self.location, error) from error

    def names(self) -> list[str]:
        """Names of the files in this folder, sorted; empty where there is no folder."""
        system, path = self._open()
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        # A name with a dot in front is a write that a kill cut short.
        return sorted(f.base_name for f in found if f.is_file and f.base_name[0] != ".")

    def folders(self) -> list[str]:
        """Names of the folders in this folder, sorted."""
        system, path = self._open()
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(f.base_name for f in found if f.type == fs.FileType.Directory)

    def has(self, name: str) -> bool:
        """Whether a file of this name is committed."""
        system, path = self._open()
        return bool(system.get_file_info(f"{path}/{name}").is_file)

    def write(self, name: str, content: bytes) -> None:
        """Write one file in one atomic step."""
        system, path = self._open()
        try:
            system.create_dir(path, recursive=True)
            if isinstance(system, fs.LocalFileSystem):
                part = Path(path) / f".{name}.{uuid.uuid4().hex}"
                try:
                    with part.open("wb") as stream:
                        stream.write(content)
                        stream.flush()
                        os.fsync(stream.fileno())
                    part.replace(Path(path) / name)
                except BaseException:
                    part.unlink(missing_ok=True)
                    raise
            else:  # an object appears when its upload is closed
                with system.open_output_stream(f"{path}/{name}") as stream:
                    stream.write(content)
        except OSError as error:
            raise explain_write(f"{self.location}/{name}", error) from error

    def copy_in(self, name: str, file: Path) -> None:
        """Copy a file of this machine here, however large it is; on a disk not in one step."""
        system, path = self._open()
        try:
            system.create_dir(path, recursive=True)
            fs.copy_files(
                str(file),
                f"{path}/{name}",
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=system,
            )
        except OSError as error:
            raise explain_write(f"{self.location}/{name}", error) from error

    def delete(self, name: str) -> None:
        """Delete one file."""
        system, path = self._open()
        system.delete_file(f"{path}/{name}")

    def read(self, name: str) -> bytes:
        """Read one whole file."""
        system, path = self._open()
        with system.open_input_stream(f"{path}/{name}") as stream:
            return bytes(stream.read())

    def write_json(self, name: str, content: Any) -> None:
        """Write readable JSON in one atomic step."""
        text = json.dumps(content, indent=2, ensure_ascii=False)
        self.write(name, (text + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Read a JSON file."""
        return json.loads(self.read(name))

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write one Parquet file in one atomic step."""
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd", **_encoding(table.schema))
        self.write(name, buffer.getvalue().to_pybytes())

    def row_count(self, name: str) -> int:
        """Rows of one Parquet file, by its footer."""
        return int(self.read_footer(name).num_rows)

    def read_footer(self, name: str) -> pq.FileMetaData:
        """The footer of one Parquet file: rows, and the sizes of its columns."""
        system, path = self._open()
        with system.open_input_file(f"{path}/{name}") as stream:
            return pq.read_metadata(stream)

    def remove(self) -> None:
        """Remove the folder with all that is in it, where it is there."""
        system, path = self._open()
        if system.get_file_info(path).type != fs.FileType.NotFound:
            system.delete_dir(path)

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read one Parquet file."""
        system, path = self._open()
        with system.open_input_file(f"{path}/{name}") as stream:
            # Not `pq.read_table`: for a small file its set-up takes as long as the reading.
            return pq.ParquetFile(stream).read(columns=columns)


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """How columns are laid out: lists of numbers by the places of their bytes.

    The likeliest tokens of a teacher are the bulk of what it answers. They hardly repeat, but their
    upper bytes do: laid out so they take a fifth less than through a dictionary.
    """
    numbers = [f for f in schema if pa.types.is_list(f.type) and _is_number(f.type.value_type)]
    if not numbers:
        return {}
    return {
        "use_dictionary": [field.name for field in schema if field not in numbers],
        "column_encoding": {f"{field.name}.list.element": "BYTE_STREAM_SPLIT" for field in numbers},
    }


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def explain_write(
    place: str, error: OSError, elsewhere: str = "Choose another --run."
) -> StillhouseError:
    """Turn the operating system's word on a failed write into ours.

    Args:
        place: What was to be written.
        error: The operating system's word.
        elsewhere: How the user chooses another place.
    """
    kept = "What was committed before is safe; run the same command again afterwards."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkError(place, "the disk is full.", f"Free some space. {kept}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UseError(place, "there is no permission to write here.", elsewhere)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return UseError(place, "a file stands where a folder must be.", elsewhere)
    return WorkError(place, f"it could not be written: {error}.", kept)


@dataclass(frozen=True)
class Manifest:
    """What a finished stage made, and from what."""

    stage: str
    fingerprint: str
    """Of everything that the stage was made from, the number of rows included."""
    made_from: dict[str, Any]
    """The readable content of the fingerprint, so that a difference can be shown."""
    shards: list[str]
    """Keys of the shards that belong to this stage; others in the folder are spare."""
    rows: int
    rejected: dict[str, int]
    """Rejected rows by reason."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures that the stage found, for the stages after it and for the report."""
    committed: str = ""
    """UTC time, ISO 8601."""


@dataclass(frozen=True)
class StageFolder:
    """The place where one stage's work is kept."""

    stage: str
    folder: Folder
    whole: str = ""
    """Of which number of rows: the fingerprint that its manifest shall have; the last one
    committed if empty."""

    @property
    def rows(self) -> Folder:
        """Committed shards, one Parquet file each."""
        return self.folder.child("rows")

    @property
    def rejected(self) -> Folder:
        """Rejected rows, one Parquet file per shard that has any."""
        return self.folder.child("rejected")

    @property
    def plan(self) -> Folder:
        """The rows to be answered, while the stage is not done."""
        return self.folder.child("plan")

    def commit_shard(self, key: str, rows: pa.Table, rejected: pa.Table) -> None:
        """Commit one shard: its rejected rows first, then its rows, which make it count."""
        if rejected.num_rows:
            self.rejected.write_table(f"{key}.parquet", rejected)
        elif self.rejected.has(f"{key}.parquet"):  # of an attempt that was killed right here
            self.rejected.delete(f"{key}.parquet")
        self.rows.write_table(f"{key}.parquet", rows)

    def copy_shard(self, key: str, other: StageFolder) -> None:
        """Commit a shard as another work of the stage has it."""
        file = f"{key}.parquet"
        if other.rejected.has(file):
            self.rejected.write(file, other.rejected.read(file))
        self.rows.write(file, other.rows.read(file))

    def other_works(self) -> list[StageFolder]:
        """The stage's other works: of this recipe before it changed, or of variants of it."""
        parent, _, mine = self.folder.location.rstrip("/").rpartition("/")
        works = Folder(parent)
        return [StageFolder(self.stage, works.child(n)) for n in works.folders() if n != mine]

    def committed_shards(self) -> set[str]:
        """Keys of all shards that are there, also from earlier attempts."""
        return {name.removesuffix(".parquet") for name in self.rows.names()}

    def different_rows(self, shards: Iterable[str]) -> np.ndarray:
        """The rows of shards, equal ones once: a row of a sample stands in the run's shard too.

        Returns:
            int64 [different rows], sorted: as `id_numbers`.
        """
        tables = (self.rows.read_table(f"{key}.parquet", ["id"]) for key in shards)
        numbers = [id_numbers(table) for table in tables]
        return np.unique(np.concatenate([np.empty(0, np.int64), *numbers]))

    def begun(self) -> bool:
        """Whether anything is committed here."""
        return bool(self.rows.names()) or self.folder.has(MANIFEST)

    def commit(self, manifest: Manifest) -> Manifest:
        """Write the manifest: from here on the stage is done. That of another number stays."""
        stamped = Manifest(**{**asdict(manifest), "committed": datetime.now(UTC).isoformat()})
        before = self._manifest(MANIFEST)
        if before is not None and before.fingerprint != manifest.fingerprint:
            self.folder.write_json(_manifest_of(before.fingerprint), asdict(before))
        self.folder.write_json(MANIFEST, asdict(stamped))
        return stamped

    def manifest(self) -> Manifest | None:
        """The manifest, or None while the stage is not done."""
        last = self._manifest(MANIFEST)
        if last is None or self.whole in ("", last.fingerprint):
            return last
        return self._manifest(_manifest_of(self.whole))

    def _manifest(self, name: str) -> Manifest | None:
        return Manifest(**self.folder.read_json(name)) if self.folder.has(name) else None

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All rows of the finished stage, in the order of its shards.

        Raises:
            WorkError: It has none.
        """
        tables = list(self.iter_shards(columns))
        if not tables:
            manifest = self.manifest()
            assert manifest is not None, "iter_shards has read it"
            reasons = ", ".join(f"{n} {reason}" for reason, n in manifest.rejected.items())
            raise WorkError(
                f"stage '{self.stage}'",
                f"no row came out of it; rejected: {reasons or 'none'}.",
                f"{self.rejected.location} has the rejected rows with the reasons.",
            )
        return pa.concat_tables(tables)

    def iter_shards(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows of the finished stage, a shard at a time."""
        manifest = self.manifest()
        if manifest is None:
            raise WorkError(self.folder.location, "this stage is not done.", "Run it first.")
        for key in manifest.shards:
            yield self.rows.read_table(f"{key}.parquet", columns)

    def read_rejected(self) -> pa.Table:
        """All rejected rows of the finished stage; an empty table where there are none."""
        manifest = self.manifest()
        shards = set(manifest.shards) if manifest else set()
        names = [n for n in self.rejected.names() if n.removesuffix(".parquet") in shards]
        tables = [self.rejected.read_table(name) for name in names]
        return pa.concat_tables(tables) if tables else REJECTED.empty_table()


def _manifest_of(whole: str) -> str:
    """The file of a manifest after another number of rows was committed."""
    return f"manifest.{whole[:WORK_LENGTH]}.json"


def id_numbers(table: pa.Table) -> np.ndarray:
    """A number for each row's id, the same for equal ids in one process: int64 [rows]."""
    return np.fromiter(map(hash, table["id"].to_pylist()), np.int64, table.num_rows)


def count_by_reason(rejected: pa.Table) -> dict[str, int]:
    """Rejected rows by reason, most frequent first."""
    counts = pc.value_counts(rejected["reason"]).to_pylist()
    return {c["values"]: c["counts"] for c in sorted(counts, key=lambda c: -c["counts"])}


@dataclass(frozen=True)
class Run:
    """A run's folder and what stands in it."""

    folder: Folder

    def stage(self, name: str, work: str, whole: str = "") -> StageFolder:
        """The folder of a stage's work, by the fingerprint of that work.

        Args:
            name: Of the stage.
            work: The fingerprint that names the folder.
            whole: That of the number of rows too, whose manifest is meant.
        """
        return StageFolder(name, self.folder.child("stages", name, work[:WORK_LENGTH]), whole)

    @property
    def ledger(self) -> Folder:
        """What every attempt used."""
        return self.folder.child("ledger")

    def state(self) -> dict[str, Any] | None:
        """The content of run.json, or None where nothing has run."""
        return self.folder.read_json("run.json") if self.folder.has("run.json") else None

    def finished_stages(self) -> dict[str, StageFolder]:
        """The stages of the run's present recipe that are done, in their order."""
        state = self.state() or {"stages": {}}
        found = {
            name: self.stage(name, work, state["fingerprints"][name])
            for name, work in state["stages"].items()
        }
        return {name: folder for name, folder in found.items() if folder.manifest()}
