"""End processes, each of which may end by itself between a look at it and the signal."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress

import psutil


def send(pid: int, sent: signal.Signals) -> bool:
    """Send a signal to a process; False if it has ended."""
    try:
        os.kill(pid, sent)
    except ProcessLookupError:
        return False
    return True


def tree(*pids: int) -> list[psutil.Process]:
    """Those of the processes that are there, and all that they have started."""
    found: list[psutil.Process] = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found.append(process)
            found += process.children(recursive=True)
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill those that are there yet, without waiting."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # psutil also notices that the id is another's now
            process.kill()


def end(started: Iterable[subprocess.Popen[bytes]], *, patience_s: float = 10.0) -> None:
    """End processes of ours with all that they have started: asked first, killed then."""
    started = list(started)
    ours = tree(*(process.pid for process in started))
    for process in started:
        process.terminate()  # harmless after its end: nothing else has waited for it
    _, alive = psutil.wait_procs(ours, timeout=patience_s)
    kill(alive)
    for process in started:
        process.wait(timeout=patience_s)
