"""Processor time against processes whose use is known, and free ports."""

import os
import socket
import subprocess
import sys

import pytest

from core.errors import UseError
from serving.instance import free_port
from serving.processor_time import cpu_seconds

HOST = "127.0.0.1"

BURN = """
import sys, time
def burn(seconds):
    while time.process_time() < seconds: pass
"""
LONE = BURN + "print(flush=True); burn(0.5); print(time.process_time(), flush=True); input()"
CHILD = BURN + "burn(0.4); print(time.process_time())"
PARENT = f"""
import subprocess, sys
print(flush=True)
child = subprocess.run([sys.executable, "-c", {CHILD!r}], capture_output=True, text=True)
print(child.stdout, flush=True)
input()
"""


@pytest.mark.parametrize("script", [LONE, PARENT], ids=["itself", "a child that has ended"])
def test_counts_what_a_process_and_its_children_use(script):
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    before = cpu_seconds([process.pid])
    used = float(process.stdout.readline())
    measured = cpu_seconds([process.pid]) - before
    # The process's own count began at its start; the system counts in steps of 10 ms.
    assert used - 0.15 < measured < used + 0.15
    process.communicate("\n")


def test_counts_each_process_once():
    child = subprocess.Popen(
        [sys.executable, "-c", LONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    child.stdout.readline()
    own = os.getpid()
    together = cpu_seconds([own, child.pid])
    assert together == pytest.approx(cpu_seconds([own]), abs=0.05)
    assert together == pytest.approx(cpu_seconds([child.pid, own]), abs=0.05)
    child.communicate(b"\n")


def test_a_process_that_has_ended_counts_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert cpu_seconds([process.pid]) == 0


def test_a_taken_port_is_refused_and_zero_finds_a_free_one():
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with pytest.raises(UseError, match=r"port \d+ of this machine is taken"):
            free_port(HOST, taken.getsockname()[1])
        found = free_port(HOST, 0)
        assert found not in (0, taken.getsockname()[1])
        assert free_port(HOST, found) == found
