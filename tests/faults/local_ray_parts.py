"""The processes of the local Ray below a state folder of its own: which there are, and their end."""

from __future__ import annotations

import os
from pathlib import Path

import processes
import psutil
from local_rays import marked

from airflow_provider_rayworkflow.workflow.local_ray.leftovers import MARK_VARIABLE
from airflow_provider_rayworkflow.workflow.local_ray.overview import list_local_rays


class LocalRayParts:
    """What a local Ray consists of now.

    :param root: of the state folders, as in ``RAY_WORKFLOW_LOCAL_FOLDER``.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def all(self) -> list[psutil.Process]:
        """The keeper and all that it has started."""
        found = []
        for pid in marked(self._root):
            try:
                found.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        return found

    def named(self, part: str) -> list[psutil.Process]:
        """Those whose program has a text in its path: ``/gcs_server``, ``/raylet``."""
        return [process for process in self.all() if part in _program(process)]

    def keepers(self) -> list[int]:
        """The processes of the keepers that have their lock."""
        found = list_local_rays(self._root)
        return [shown.state.process.pid for shown in found if shown.state is not None]

    def keeper_ids(self) -> set[str]:
        """The keepers of which any process is left: one, and after an end none."""
        start = f"{MARK_VARIABLE}=".encode()
        ids = set()
        for process in self.all():
            try:
                variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended since
            ids |= {
                os.fsdecode(one).rpartition(":")[2] for one in variables if one.startswith(start)
            }
        return ids

    def kill(self) -> int:
        """Kill all at once; how many there were."""
        found = self.all()
        processes.kill(found)
        return len(found)

    def clear(self) -> None:
        """End all, also what was just being started; the machine is cold after it."""
        while left := self.all():
            processes.kill(left)
            psutil.wait_procs(left, timeout=10)


def _program(process: psutil.Process) -> str:
    try:
        return next(iter(process.cmdline()), "")
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
