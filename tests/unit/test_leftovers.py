"""What the fault tests look for is found where it is there."""

import subprocess
import sys

from tests.leftovers import leftovers, marked

ORPHAN = """
import subprocess, sys
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         start_new_session=True)
print(child.pid)
"""

RENAMED = """
import sys, setproctitle
setproctitle.setproctitle("another name " * 100)
print(flush=True)
sys.stdin.read()
"""


def test_an_orphan_in_a_session_of_its_own_is_found_until_it_ends():
    mark, environment = marked()
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN], env=environment, capture_output=True, text=True, check=True
    )
    pid = int(done.stdout)
    try:
        assert leftovers(mark, seconds=0) == {pid: "sleep 60 "}
    finally:
        subprocess.run(["kill", "-9", str(pid)], check=True)
    assert leftovers(mark, seconds=10) == {}


def test_a_process_that_renames_itself_is_found():
    mark, environment = marked()
    process = subprocess.Popen(
        [sys.executable, "-c", RENAMED],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    assert list(leftovers(mark, seconds=0)) == [process.pid]
    process.communicate()
    assert leftovers(mark, seconds=0) == {}


def test_other_processes_are_not_found():
    assert leftovers(marked()[0], seconds=0) == {}
