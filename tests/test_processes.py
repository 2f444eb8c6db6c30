"""A process may end by itself between a look at it and the signal."""

import signal
import subprocess

import processes
import pytest


@pytest.fixture
def ended() -> subprocess.Popen[bytes]:
    """A process that has ended since the test looked at it."""
    process = subprocess.Popen(["sleep", "60"])
    process.looked_at = processes.tree(process.pid)
    process.kill()
    process.wait()
    return process


def test_a_process_that_has_ended_meanwhile_is_no_error(ended: subprocess.Popen[bytes]):
    (looked_at,) = ended.looked_at
    assert looked_at.pid == ended.pid
    processes.kill([looked_at])
    assert processes.tree(ended.pid) == []
    assert not processes.send(ended.pid, signal.SIGKILL)
    processes.end([ended])


def test_a_process_that_does_not_end_when_asked_is_killed_with_all_that_it_started():
    # It goes on to nothing if what it waits for is killed first.
    script = "trap '' TERM; sleep 60 & echo; wait; kill -STOP $$"
    gone = subprocess.Popen(["true"])
    gone.wait()
    stubborn = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    stubborn.stdout.readline()
    processes.end([gone, stubborn], patience_s=2)
    stubborn.stdout.close()
    assert stubborn.returncode == -signal.SIGKILL
