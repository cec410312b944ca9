"""What a process started goes with it, even where the process is killed."""

from __future__ import annotations

import subprocess
import sys

from tests.leftovers import leftovers, marked

PARENT = """\
import subprocess, sys
from pipelines.process_group import end_group_with_this_process
end_group_with_this_process()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("started", flush=True)
sys.stdin.read()
"""


def start():
    mark, environment = marked()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout.readline() == "started\n"
    return mark, parent


def test_children_are_killed_with_a_process_that_is_killed():
    mark, parent = start()
    assert len(leftovers(mark, seconds=0)) == 3, "the process, its child and the watch"
    parent.kill()
    parent.wait()
    assert not leftovers(mark, seconds=20)


def test_children_stay_while_their_process_does():
    mark, parent = start()
    assert len(leftovers(mark, seconds=2)) == 3
    parent.stdin.close()  # it ends by itself
    assert not leftovers(mark, seconds=20)
