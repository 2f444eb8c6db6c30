"""How a keeper decides that it may end: in the process of the test, without any other one."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.local_ray import keeper as keepers
from airflow_provider_rayworkflow.workflow.local_ray import manager_watch
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size, StartedCluster
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.keeper import Keeper
from airflow_provider_rayworkflow.workflow.local_ray.state import (
    KeeperState,
    ManagerRequest,
    Presence,
)
from airflow_provider_rayworkflow.workflow.storage.leases import Process


class Cluster:
    """May hold a workflow that begins when the keeper says that it ends; so many looks long."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self.begins_late = 0
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
        if state.phase == "ending" and self.begins_late:
            self.begins_late -= 1
            return 1
        return 0

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    monkeypatch.setattr(keepers.signal, "signal", lambda *_: None)
    monkeypatch.setattr(keepers, "_POLL_S", 0.01)
    monkeypatch.setattr(keepers, "_LOOK_S", 0.02)
    monkeypatch.setattr(keepers, "_LEFTOVERS_S", 0.0)
    monkeypatch.setattr(manager_watch, "_LOOK_S", 0.02)
    folder = StateFolder(str(tmp_path / "local"), "env")
    folder.make()
    return folder


def keep(folder: StateFolder, cluster: Any, *, idle_s: float = 0.0) -> int:
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
    keeper = Keeper(folder, lambda: cluster, state=state, lock=lock, idle_s=idle_s)
    try:
        return keeper.run()
    finally:
        os.close(lock)


def test_a_workflow_that_began_at_the_last_moment_keeps_it(folder: StateFolder):
    cluster = Cluster(folder)
    cluster.begins_late = 1
    assert keep(folder, cluster) == 0
    assert cluster.begins_late == 0
    assert cluster.stopped == 1
    assert ("ending", "running") in pairwise(cluster.phases)
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


def test_a_full_disk_ends_nothing(folder: StateFolder, monkeypatch: pytest.MonkeyPatch):
    write, failures = folder.write_state, []

    def fail_sometimes(state: KeeperState) -> None:
        if state.phase == "ending" and len(failures) < 2:
            failures.append(asdict(state))
            raise DataSaveError("no space left") from OSError(errno.ENOSPC, "full")
        write(state)

    monkeypatch.setattr(folder, "write_state", fail_sometimes)
    cluster = Cluster(folder)
    assert keep(folder, cluster) == 0
    assert len(failures) == 2
    assert cluster.stopped == 1
    assert folder.read_state() is None


def test_a_disk_that_is_full_when_it_would_end_leaves_no_try_waiting(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
):
    """A try that comes at that moment must find a keeper that runs, not one that ends."""
    write, tries, seen = folder.write_state, [], []

    def fail_once(state: KeeperState) -> None:
        if state.phase == "ending" and not tries:
            tries.append(folder.enter(Presence(pid=1, since=1.0, idle_s=0.0)))
            raise DataSaveError("no space left")
        write(state)

    class Watched(Cluster):
        def held(self, storage: str) -> int:
            number = super().held(storage)
            if tries and len(seen) < 5:
                seen.append(self.phases[-1])
                if len(seen) == 5:
                    folder.leave(tries[0])
            return number

    monkeypatch.setattr(folder, "write_state", fail_once)
    assert keep(folder, Watched(folder)) == 0
    assert seen == ["running"] * 5


def test_a_ray_that_does_not_end_holds_the_process_for_a_while_only(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
):
    ended: list[int] = []
    monkeypatch.setattr(keepers.os, "_exit", ended.append)
    monkeypatch.setattr(keepers.logging, "shutdown", lambda: None)

    class Stuck(Cluster):
        def stop(self) -> None:
            while not ended:
                time.sleep(0.01)

    monkeypatch.setattr(keepers, "_STOP_TIMEOUT_S", 0.2)
    keep(folder, Stuck(folder))
    assert ended == [1]
