"""Runs keep what was committed, whole or not at all, and say what is in the way."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UseError, WorkError
from core.rows import REJECTED
from core.run import Folder, Manifest, Run, explain_write
from tests.permissions import bind_permissions, mode

TABLE = pa.table({"id": ["a", "b"]})
NONE_REJECTED = REJECTED.empty_table()


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(Folder(str(tmp_path / "run")))


def manifest(stage, shards):
    return Manifest(stage, "fingerprint", {}, shards, 2, {})


def test_a_stage_is_done_when_its_manifest_is_there(run):
    stage = run.stage("write", "0123456789abcdef")
    assert stage.manifest() is None
    assert stage.committed_shards() == set()
    stage.commit_shard("one", TABLE, NONE_REJECTED)
    assert stage.committed_shards() == {"one"}
    assert stage.manifest() is None
    stage.commit(manifest("write", ["one"]))
    assert stage.read().to_pylist() == [{"id": "a"}, {"id": "b"}]
    assert stage.manifest().committed


def test_a_folder_is_done_for_several_numbers_of_rows(run):
    def committed(whole, shards):
        stage = run.stage("write", "w" * 12, whole)
        stage.commit(Manifest("write", whole, {}, shards, 2, {}))
        return stage

    many = committed("many" * 4, ["one", "two"])
    few = committed("few" * 4, ["one"])
    assert many.manifest().shards == ["one", "two"]
    assert few.manifest().shards == ["one"]
    assert run.stage("write", "w" * 12).manifest().shards == ["one"], "the last one"
    assert run.stage("write", "w" * 12, "other" * 4).manifest() is None
    committed("many" * 4, ["one", "two"])
    assert few.manifest().shards == ["one"]


def test_only_the_shards_of_the_manifest_are_read(run):
    stage = run.stage("write", "w" * 12)
    for key in ("old", "new"):
        stage.commit_shard(key, pa.table({"id": [key]}), NONE_REJECTED)
    stage.commit(manifest("write", ["new"]))
    assert stage.read()["id"].to_pylist() == ["new"]


def test_rejected_rows_are_kept_beside(run):
    stage = run.stage("clean", "w" * 12)
    row = {"id": "x", "stage": "clean", "teacher": None}
    row |= {"reason": "empty", "detail": "nothing", "original": "{}"}
    stage.commit_shard("one", TABLE, pa.Table.from_pylist([row], schema=REJECTED))
    stage.commit_shard("two", TABLE, NONE_REJECTED)
    stage.commit(manifest("clean", ["one", "two"]))
    assert stage.read_rejected().to_pylist() == [row]


def test_a_shard_made_again_leaves_no_rejected_rows_of_the_first_attempt(run):
    stage = run.stage("write", "w" * 12)
    row = {"id": "x", "stage": "write", "reason": "cut", "detail": "long", "original": "{}"}
    # Killed between the rejected rows and the rows; the second attempt rejects nothing.
    stage.rejected.write_table("one.parquet", pa.Table.from_pylist([row], schema=REJECTED))
    stage.commit_shard("one", TABLE, NONE_REJECTED)
    stage.commit(manifest("write", ["one"]))
    assert stage.read_rejected().num_rows == 0


def test_a_half_written_file_is_never_seen(run):
    """SIGKILL in the middle of a write leaves no file under its final name."""
    script = (
        "import os, signal, pathlib\n"
        "from core.run import Folder\n"
        "replace = pathlib.Path.replace\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"Folder({run.folder.location!r}).write('x.json', b'half')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(Path(run.folder.location).iterdir())  # the part is there
    assert run.folder.names() == []


def test_a_full_disk_is_told_and_loses_nothing(run):
    """A real limit on file size stands for the disk; the kernel reports it as a failed write."""
    run.folder.write("kept.json", b"1")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(WorkError) as caught:
            run.folder.write("large.bin", os.urandom(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "large.bin" in caught.value.place
    assert "safe" in caught.value.mend
    assert run.folder.names() == ["kept.json"]


def test_a_disk_without_space_is_named(run):
    """/dev/full answers every write with ENOSPC."""
    with pytest.raises(OSError) as caught, Path("/dev/full").open("wb", buffering=0) as stream:
        stream.write(b"x")
    error = explain_write("place", caught.value)
    assert isinstance(error, WorkError)
    assert "the disk is full" in error.cause


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UseError) as caught:
        Folder(str(tmp_path / "run")).write("x", b"")
    assert "--run" in caught.value.mend


def test_a_folder_without_permission_is_named(tmp_path):
    script = f"from core.run import Folder; Folder('{tmp_path}/run').write('x', b'')"
    with mode(tmp_path, 0o555):
        done = subprocess.run(
            [sys.executable, "-c", script],
            preexec_fn=bind_permissions(),
            capture_output=True,
            text=True,
            check=False,
        )
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"core.errors.UseError: {tmp_path}/run/x: there is no permission")


@pytest.mark.parametrize("url", ["foo://x", "file://relative", "s3://b ad/x", "abfs://x"])
def test_a_url_that_leads_nowhere_is_named(url):
    with pytest.raises(UseError) as caught:
        Run(Folder(url)).state()
    assert caught.value.place == url


def test_json_is_readable(run):
    run.folder.write_json("a.json", {"word": "schön"})
    assert "schön" in run.folder.read("a.json").decode()
    assert json.loads(run.folder.read("a.json")) == {"word": "schön"}


def test_a_stage_that_kept_no_row_says_why_where_it_is_read(run):
    stage = run.stage("clean", "w" * 12)
    stage.commit(Manifest("clean", "f", {}, [], 0, {"too-short": 7}))
    with pytest.raises(WorkError, match="7 too-short") as caught:
        stage.read()
    assert "clean" in caught.value.place


def test_lists_of_numbers_are_laid_out_by_their_bytes_and_come_back(tmp_path):
    draw = np.random.default_rng(0)
    numbers = pa.array([draw.integers(0, 50_000, 800).astype(np.int32) for _ in range(50)])
    table = pa.table({"id": [f"row-{n}" for n in range(50)], "top_ids": numbers})
    folder = Folder(str(tmp_path))
    folder.write_table("rows.parquet", table)
    assert folder.read_table("rows.parquet") == table
    plain = pa.BufferOutputStream()
    pq.write_table(table, plain, compression="zstd")
    assert (tmp_path / "rows.parquet").stat().st_size < 0.85 * plain.tell()
