"""What a run came to is told, whatever becomes of the logs."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.ray_session import _keep_logs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def found(tmp_path) -> Path:
    folder = tmp_path / "session"
    (folder / "workers").mkdir(parents=True)
    (folder / "small.log").write_text("small")
    (folder / "workers" / "large.log").write_bytes(b"x" * 5000)
    return folder


def test_logs_are_kept_with_those_of_earlier_attempts(found, tmp_path):
    told: list[str] = []
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "old.log").write_text("old")
    _keep_logs(found, tmp_path / "ray", told.append)
    assert sorted(file.name for file in (tmp_path / "ray").rglob("*.log")) == [
        "large.log",
        "old.log",
        "small.log",
    ]
    assert not told


def test_logs_that_do_not_fit_are_one_line_and_no_error(found, tmp_path):
    """A real limit on file size stands for the disk; the kernel reports it as a failed write."""
    told: list[str] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        _keep_logs(found, tmp_path / "ray", told.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(told) == 1
    assert "Ray's logs could not be copied" in told[0]
    assert "File too large" in told[0]
    assert (tmp_path / "ray" / "small.log").read_text() == "small"


def test_logs_that_can_go_nowhere_are_one_line_and_no_error(found, tmp_path):
    told: list[str] = []
    (tmp_path / "ray").write_text("a file in the way")
    _keep_logs(found, tmp_path / "ray", told.append)
    assert len(told) == 1


def test_a_full_disk_does_not_hide_the_error_of_a_run(tmp_path):
    """/dev/full as the driver's log answers every write with ENOSPC."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from core.errors import WorkError\n"
        "from core.prices import PriceBook\n"
        "from core.run import Folder, Run\n"
        "from stillhouse.display import RunDisplay\n"
        "from stillhouse.ray_session import _keep_logs\n"
        f"run = Run(Folder('{tmp_path}/run'))\n"
        "display = RunDisplay(PriceBook(currency='USD'), run, Path('/dev/full'))\n"
        "with display.showing():\n"
        "    print('of some library')\n"
        "    try:\n"
        "        raise WorkError('somewhere', 'the disk is full.', 'Free some space.')\n"
        "    finally:\n"
        f"        _keep_logs(Path('{tmp_path}/absent'), Path('{tmp_path}/ray'), display.warn)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},  # without PYTHONUNBUFFERED: the print fails when flushed
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Ray's logs could not be copied")
    assert any(line.startswith("core.errors.WorkError: somewhere") for line in lines)
    assert "OSError" not in done.stderr
