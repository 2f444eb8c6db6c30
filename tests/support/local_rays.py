"""A state folder of its own for each test, and processes that use it; no process stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.launch import Launcher
from airflow_provider_rayworkflow.workflow.local_ray.leftovers import MARK_VARIABLE
from airflow_provider_rayworkflow.workflow.local_ray.visit import LocalRayVisit

SUPPORT = Path(__file__).parent


def is_gone(pid: int) -> bool:
    """True if no thread of the process is left: its first one may be a zombie while others hold its locks."""
    try:
        is_zombie = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return is_zombie and os.listdir(f"/proc/{pid}/task") == [str(pid)]
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return True


class Machine:
    """What a stand-in for Ray is told, and what has come of it."""

    def __init__(self, folder: Path) -> None:
        self._told = folder / "told"
        self._told.mkdir()
        self.root = str(folder / "local")
        self.visitors: list[subprocess.Popen[bytes]] = []
        self.visits: list[LocalRayVisit] = []

    def tell(self, name: str, text: object) -> None:
        new = self._told / f".{name}"
        new.write_text(str(text))
        new.replace(self._told / name)

    def forget(self, name: str) -> None:
        (self._told / name).unlink(missing_ok=True)

    def said(self, name: str) -> list[str]:
        path = self._told / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def starts(self) -> list[int]:
        """The processes of all keepers that were started."""
        return [int(line.split()[0]) for line in self.said("starts")]

    def folder(self, name: str = "env") -> StateFolder:
        return StateFolder(self.root, name)

    def visit(
        self, name: str = "env", *, idle_s: float = 60.0, timeout_s: float = 30.0, **size: int
    ) -> LocalRayVisit:
        visit = LocalRayVisit(
            self.folder(name),
            size=Size(**size),
            idle_s=idle_s,
            launcher=Launcher(cluster="stand_in_ray:StandIn"),
            timeout_s=timeout_s,
        )
        self.visits.append(visit)
        return visit

    def visitors_start(
        self,
        number: int = 1,
        name: str = "env",
        storage: str = "one",
        *,
        idle_s: float = 60.0,
        timeout_s: float = 60.0,
    ) -> subprocess.Popen[bytes]:
        """Processes that use the local Ray as long as their standard input is open."""
        arguments = [str(number), self.root, name, storage, str(idle_s), str(timeout_s)]
        process = subprocess.Popen(
            [sys.executable, str(SUPPORT / "local_ray_visitors.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.visitors.append(process)
        return process

    def close(self) -> None:
        for visit in self.visits:
            with suppress(OSError):
                visit.close()
        for visitor in self.visitors:
            with suppress(ProcessLookupError):
                os.killpg(visitor.pid, signal.SIGKILL)
            visitor.communicate()
        for _ in range(2):
            for pid in marked(self.root):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def lines(process: subprocess.Popen[bytes], number: int = 1) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(number)]


def marked(root: str) -> list[int]:
    """The processes that a keeper below a root has started, itself among them."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK_VARIABLE}={root}/".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    paths = [str(SUPPORT), str(SUPPORT.parent.parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    machine = Machine(tmp_path)
    monkeypatch.setenv("STAND_IN_FOLDER", str(tmp_path / "told"))
    yield machine
    machine.close()
