"""In the place of Ray for a keeper: a cluster of one light process, told by files what to do.

The folder is that of ``STAND_IN_FOLDER``; of its files, ``starts`` has a line for each start.
"""

import ctypes
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size, StartedCluster

_PR_SET_PDEATHSIG = 1


class StandIn:
    """See :class:`LocalCluster`.

    ``fail``: the start fails with its text; ``slow``: takes as many seconds; ``held-<storage>``: so
    many workflows are held; ``bad-<storage>``: the manager does not start, with its text;
    ``away-<storage>``: the same, and it may start a moment later;
    ``hangs-<storage>``: it does not come up; ``stuck``: the end does not come; ``resists``: a
    process without the cluster's fate is started, too.
    """

    def __init__(self) -> None:
        self._folder = Path(os.environ["STAND_IN_FOLDER"])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, size: Size, *, token_file: str) -> StartedCluster:
        assert len(Path(token_file).read_text().strip()) == 64
        with (self._folder / "starts").open("a") as starts:
            starts.write(f"{os.getpid()}\n")
        if slow := self._told("slow"):
            time.sleep(float(slow))
        if failure := self._told("fail"):
            raise RuntimeError(failure)
        self._process = subprocess.Popen(["sleep", "600"], preexec_fn=_end_with_parent)
        (self._folder / "processes").write_text(str(self._process.pid))
        if self._told("resists"):
            free = subprocess.Popen(["sleep", "600"], start_new_session=True)
            (self._folder / "free").write_text(str(free.pid))
        return StartedCluster(
            cluster_id=uuid.uuid4().hex,
            address="127.0.0.1:1",
            size=Size(num_cpus=size.num_cpus or 8, num_gpus=size.num_gpus or 0),
        )

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def start_manager(self, storage: str, location: str) -> None:
        if problem := self._told(f"bad-{storage}"):
            raise OSError(problem)
        if problem := self._told(f"away-{storage}"):
            raise DataLoadError(problem, is_transient=True)
        while self._told(f"hangs-{storage}"):
            time.sleep(0.05)
        with (self._folder / "managers").open("a") as managers:
            managers.write(f"{storage} {location}\n")

    def held(self, storage: str) -> int:
        with (self._folder / "looks").open("a") as looks:
            looks.write(f"{storage}\n")
        return int(self._told(f"held-{storage}") or 0)

    def stop(self) -> None:
        while self._told("stuck"):
            time.sleep(0.05)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        (self._folder / "stopped").write_text("cleanly")

    def _told(self, name: str) -> str:
        path = self._folder / name
        return path.read_text() if path.exists() else ""


def _end_with_parent() -> Any:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
