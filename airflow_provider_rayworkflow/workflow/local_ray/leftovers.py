"""Processes that a keeper has left behind which was killed.

Ray's processes end with the keeper, because Ray asks the kernel for that. What they have started, or
was just being started, may go on; each process has the keeper's mark in its environment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder

log = get_logger(__name__)

#: In the environment of a keeper and of all that it starts: of which folder and which keeper it is.
MARK_VARIABLE = "RAY_WORKFLOW_LOCAL_RAY"

_POLL_S = 0.1


def mark(folder: StateFolder, keeper_id: str) -> str:
    """The value of :data:`MARK_VARIABLE` for a keeper."""
    return f"{folder.path}:{keeper_id}"


def end_leftovers(folder: StateFolder, *, keeper_id: str, wait_s: float) -> int:
    """End what earlier keepers of a folder have left. Only for its one keeper, which has the lock.

    :param keeper_id: of the keeper that calls: what has its mark stays.
    :param wait_s: how long they get to end by themselves.
    :returns: how many had to be killed.
    """
    deadline = time.monotonic() + wait_s
    while pids := list(_leftovers(folder, keeper_id)):
        if time.monotonic() >= deadline:
            return sum(_kill(pid, folder, keeper_id) for pid in pids)
        time.sleep(_POLL_S)
    return 0


def _leftovers(folder: StateFolder, keeper_id: str) -> Iterator[int]:
    with suppress(FileNotFoundError):  # no /proc: not Linux
        for name in os.listdir("/proc"):
            if name.isdecimal() and _is_leftover(int(name), folder, keeper_id):
                yield int(name)


def _is_leftover(pid: int, folder: StateFolder, keeper_id: str) -> bool:
    if pid == os.getpid():
        return False
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # of another user, or it has ended
        return False
    start = os.fsencode(f"{MARK_VARIABLE}={mark(folder, '')}")
    own = os.fsencode(f"{MARK_VARIABLE}={mark(folder, keeper_id)}")
    return any(one.startswith(start) and one != own for one in variables)


def _kill(pid: int, folder: StateFolder, keeper_id: str) -> bool:
    """Kill a process, unless its number is another one's by now."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _is_leftover(pid, folder, keeper_id):
            return False
        log.warning("Process %d, left by a local Ray that was killed, is ended", pid)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        return True
    finally:
        os.close(process)
