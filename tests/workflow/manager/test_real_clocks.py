"""One owner, with real processes: their clocks are set (faketime), or they are stopped (SIGSTOP)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S

pytestmark = [pytest.mark.invariant(3), pytest.mark.slow, pytest.mark.timeout(280)]

PROGRAM = Path(__file__).parents[2] / "support" / "owner_program.py"
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return str(tmp_path / "storage")


@pytest.fixture
def start(storage: str) -> Iterator[Start]:
    """Start a process with a manager; at the end all are killed."""
    started: list[subprocess.Popen] = []

    def start(what: str, *before: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [*before, sys.executable, str(PROGRAM), storage, what],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def starts(storage: str) -> int:
    path = Path(f"{storage}.starts")
    return len(path.read_text().splitlines()) if path.exists() else 0


def open_gate(storage: str) -> None:
    Path(f"{storage}.gate").touch()


def told(process: subprocess.Popen) -> str:
    """What it prints last."""
    assert process.stdout is not None
    return process.stdout.read().splitlines()[-1]


def faketime(step: str) -> list[str]:
    program = shutil.which("faketime")
    if program is None:
        pytest.skip("faketime is not installed (Debian: apt-get install faketime)")
    return [program, "-f", step]


def namespace() -> list[str]:
    """Runs a program as if on another machine, as far as processes go.

    With a /dev/shm of its own: faketime names what it keeps there by its process number, and numbers
    in a namespace are those of every other one.
    """
    mounts = 'mount -t tmpfs tmpfs /dev/shm && exec "$0" "$@"'
    command = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", mounts]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], stderr=-3).returncode:
        pytest.skip("this user can't make namespaces of processes")
    return command


@pytest.mark.parametrize("is_here", [True, False], ids=["same host", "another host"])
@pytest.mark.parametrize("step", ["+400s", "-1h"])
def test_a_reader_whose_clock_was_set_takes_nothing_over(
    storage: str, start: Start, step: str, is_here: bool
):
    before = faketime(step) if is_here else [*namespace(), *faketime(step)]
    owner = start("run")
    wait_until(lambda: starts(storage) == 1)
    reader = start("resume", *before)
    assert reader.stdout is not None
    when = float(reader.stdout.readline().split()[1])
    assert abs(when - time.time()) > 300  # its clock is another one indeed
    time.sleep(LEASE_TTL_S / 3)  # time for a second start, which must not come
    open_gate(storage)
    assert [told(owner), told(reader)] == ["output 7", "output 7"]
    assert starts(storage) == 1


def test_an_owner_that_was_stopped_for_longer_than_its_lease_answers_by_what_its_successor_wrote(
    storage: str, start: Start
):
    owner = start("run")
    wait_until(lambda: starts(storage) == 1)
    owner.send_signal(signal.SIGSTOP)
    successors = [start("resume"), start("resume")]
    wait_until(lambda: starts(storage) == 2)
    open_gate(storage)
    outputs = [told(process) for process in successors]
    owner.send_signal(signal.SIGCONT)
    assert outputs == ["output 7", "output 7"]
    assert told(owner) in ("output 7", "error OwnershipLostError")
    assert starts(storage) == 2
    store = WorkflowStore(open_store(storage))
    files = store.list_files("w")
    assert [file.epoch for file in files if file.kind == "journal"] == [2]
    record = store.read_status("w")
    assert (record.status, record.epoch) == ("SUCCESSFUL", 2)
