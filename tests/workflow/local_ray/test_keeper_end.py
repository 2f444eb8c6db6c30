"""How a keeper decides that it may end: in the process of the test, without any other one."""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size, StartedCluster
from airflow_provider_rayworkflow.workflow.local_ray.folder import HeldPresence, StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.keeper import Keeper, KeeperTimes
from airflow_provider_rayworkflow.workflow.local_ray.manager_watch import WatchTimes
from airflow_provider_rayworkflow.workflow.local_ray.state import (
    KeeperState,
    ManagerRequest,
    Presence,
)
from airflow_provider_rayworkflow.workflow.storage.leases import Process


class Cluster:
    """May hold a workflow that begins when the keeper says that it ends, until that says otherwise; so many times."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self.begins_late = 0
        self._is_held = False
        self.phases: list[str] = []
        self.stopped = 0
        self.has_died = False

    def start(self, size: Size, *, token_file: str) -> StartedCluster:
        request = ManagerRequest(storage="/data", location="/data")
        self._folder.request_manager(request)
        return StartedCluster(cluster_id="c", address="a:1", size=size)

    def has_ended(self) -> bool:
        return self.has_died

    def start_manager(self, storage: str, location: str) -> None: ...

    def held(self, storage: str) -> int:
        state = self._folder.read_state()
        assert state is not None
        self.phases.append(state.phase)
        if state.phase == "ending":
            self._is_held = self.begins_late > 0
        elif self._is_held:
            self._is_held = False
            self.begins_late -= 1
        return int(self._is_held)

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    folder = StateFolder(str(tmp_path / "local"), "env")
    folder.make()
    return folder


class NotingFolder(StateFolder):
    """The folder of another one's path, that notes which phases are written.

    What a manager's watch happens to see of them is another thing: it looks while they are written.
    """

    def __init__(self, folder: StateFolder) -> None:
        super().__init__(folder.root, folder.name)
        self.phases: list[str] = []

    def write_state(self, state: KeeperState) -> None:
        self.phases.append(state.phase)
        super().write_state(state)


class FullFolder(StateFolder):
    """The folder of another one's path, on a disk that is full at the moments that a test names."""

    def __init__(self, folder: StateFolder, is_full: Callable[[KeeperState], bool]) -> None:
        super().__init__(folder.root, folder.name)
        self._is_full = is_full

    def write_state(self, state: KeeperState) -> None:
        if self._is_full(state):
            raise DataSaveError("no space left") from OSError(errno.ENOSPC, "full")
        super().write_state(state)


def keep(
    folder: StateFolder, cluster: Any, *, idle_s: float = 0.0, stop_timeout_s: float = 60.0
) -> int:
    lock = folder.take_keeper_lock()
    assert lock is not None
    state = KeeperState(
        keeper_id="k",
        process=Process.current(),
        phase="starting",
        since=time.time(),
        prefix="/env",
        package_version="1",
        ray_version="2",
        size=Size(),
        cluster_id="",
        address="",
        token_file=folder.token_path,
    )
    times = KeeperTimes(
        poll_s=0.01,
        look_s=0.02,
        leftovers_s=0.0,
        stop_timeout_s=stop_timeout_s,
        watch=WatchTimes(look_s=0.02),
    )
    keeper = Keeper(folder, lambda: cluster, state=state, lock=lock, idle_s=idle_s, times=times)
    try:
        return keeper.run()
    finally:
        os.close(lock)


def test_a_workflow_that_began_at_the_last_moment_keeps_it(folder: StateFolder):
    cluster = Cluster(folder)
    cluster.begins_late = 1
    noting = NotingFolder(folder)
    assert keep(noting, cluster) == 0
    assert cluster.begins_late == 0
    assert cluster.stopped == 1
    assert ("ending", "running") in pairwise(noting.phases)
    assert folder.read_state() is None


def test_it_waits_for_as_long_as_it_was_told(folder: StateFolder):
    begun = time.monotonic()
    keep(folder, Cluster(folder), idle_s=0.4)
    assert time.monotonic() - begun >= 0.4


def test_a_dead_ray_is_ended_at_once_though_a_workflow_is_held(folder: StateFolder):
    cluster = Cluster(folder)
    cluster.has_died = True
    assert keep(folder, cluster, idle_s=60) == 0
    assert cluster.stopped == 1


def test_a_full_disk_ends_nothing(folder: StateFolder):
    failures: list[dict[str, Any]] = []

    def is_full_twice(state: KeeperState) -> bool:
        if state.phase != "ending" or len(failures) == 2:
            return False
        failures.append(asdict(state))
        return True

    cluster = Cluster(folder)
    assert keep(FullFolder(folder, is_full_twice), cluster) == 0
    assert len(failures) == 2
    assert cluster.stopped == 1
    assert folder.read_state() is None


def test_a_disk_that_is_full_when_it_would_end_leaves_no_try_waiting(folder: StateFolder):
    """A try that comes at that moment must find a keeper that runs, not one that ends."""
    tries: list[HeldPresence] = []
    seen: list[str] = []

    def is_full_once(state: KeeperState) -> bool:
        if state.phase != "ending" or tries:
            return False
        tries.append(folder.enter(Presence(pid=1, since=1.0, idle_s=0.0)))
        return True

    class Watched(Cluster):
        def held(self, storage: str) -> int:
            number = super().held(storage)
            if tries and len(seen) < 5:
                seen.append(self.phases[-1])
                if len(seen) == 5:
                    folder.leave(tries[0])
            return number

    assert keep(FullFolder(folder, is_full_once), Watched(folder)) == 0
    assert seen == ["running"] * 5


def test_a_ray_that_does_not_end_holds_the_process_for_a_while_only(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
):
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)

    class Stuck(Cluster):
        def stop(self) -> None:
            while not ended:
                time.sleep(0.01)

    keep(folder, Stuck(folder), stop_timeout_s=0.2)
    assert ended == [1]
