"""The keeper of a local Ray: starts it, serves its callers, and ends it when it is idle."""

from __future__ import annotations

import importlib.metadata
import logging
import math
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.shown_text import shown_text
from airflow_provider_rayworkflow.workflow.import_path import load_function
from airflow_provider_rayworkflow.workflow.local_ray.cluster import LocalCluster, Size
from airflow_provider_rayworkflow.workflow.local_ray.errors import LocalRayError
from airflow_provider_rayworkflow.workflow.local_ray.folder import DoorBusyError, StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.leftovers import end_leftovers
from airflow_provider_rayworkflow.workflow.local_ray.manager_watch import ManagerWatch, WatchTimes
from airflow_provider_rayworkflow.workflow.local_ray.state import (
    KeeperState,
    ManagerReport,
    Phase,
    StartFailure,
)
from airflow_provider_rayworkflow.workflow.storage.leases import Process

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeeperTimes:
    """In seconds.

    :param poll_s: between two looks for requests.
    :param look_s: between two looks at who is present and what is held.
    :param leftovers_s: for what an earlier keeper has left to end by itself.
    :param door_timeout_s: for the folder's door.
    :param answer_timeout_s: for a manager to say whether it is idle.
    :param stop_timeout_s: for the end of Ray.
    :param keep_s: between two times at which its files are made to look used.
    """

    poll_s: float = 0.1
    look_s: float = 1.0
    leftovers_s: float = 5.0
    door_timeout_s: float = 10.0
    answer_timeout_s: float = 15.0
    stop_timeout_s: float = 60.0
    keep_s: float = 3600.0
    watch: WatchTimes = field(default_factory=WatchTimes)


class Keeper:
    """One cluster, from its start to its end, in the main thread of the process.

    :param make_cluster: called when it starts.
    :param state: what it says of itself first; its phase is ``starting``.
    :param lock: the descriptor that holds the keeper's lock.
    :param idle_s: how long it stays when nothing is left to do, while no process says otherwise.
    """

    def __init__(
        self,
        folder: StateFolder,
        make_cluster: Callable[[], LocalCluster],
        *,
        state: KeeperState,
        lock: int,
        idle_s: float,
        times: KeeperTimes = KeeperTimes(),
    ) -> None:
        self._folder = folder
        self._make_cluster = make_cluster
        self._state = state
        self._lock = lock
        self._idle_s = idle_s
        self._times = times
        self._watches: dict[str, ManagerWatch] = {}
        self._busy_at = 0.0
        self._kept_at = -math.inf
        self._signal = ""
        self._reports = 0
        self._reporting = threading.Lock()

    def run(self) -> int:
        """Return, with the exit code, when Ray has ended."""
        try:
            cluster = self._start()
        except Exception as exc:  # of Ray: of any kind
            log.exception("Ray does not start")
            self._fail(exc)
            return 1
        reason = self._serve(cluster)
        log.info("The local Ray ends: %s", reason)
        self._end(cluster)
        return 0

    def _start(self) -> LocalCluster:
        folder, keeper_id = self._folder, self._state.keeper_id
        folder.write_state(self._state)
        killed = end_leftovers(folder, keeper_id=keeper_id, wait_s=self._times.leftovers_s)
        if killed:
            log.warning("%d processes of an earlier local Ray had to be killed", killed)
        folder.write_token(secrets.token_hex(32))
        signal.signal(signal.SIGTERM, self._on_signal)
        cluster = self._make_cluster()
        started = cluster.start(self._state.size, token_file=folder.token_path)
        signal.signal(signal.SIGTERM, self._on_signal)  # Ray has set its own
        self._busy_at = time.monotonic()
        self._state = replace(
            self._state,
            cluster_id=started.cluster_id,
            address=started.address,
            size=started.size,
        )
        self._say("running")
        log.info("The local Ray runs at %s with %s", started.address, started.size)
        return cluster

    def _fail(self, exc: Exception) -> None:
        message = shown_text(str(exc)).strip() or type(exc).__name__
        failure = StartFailure(keeper_id=self._state.keeper_id, message=f"{message.rstrip('.')}.")
        with (
            suppress(StorageError, LocalRayError),
            self._folder.door(timeout_s=self._times.door_timeout_s),
        ):
            self._folder.write_failure(failure)
            self._folder.clear()

    # ---- while it runs

    def _serve(self, cluster: LocalCluster) -> str:
        """Return, with the reason, when it has to end."""
        look_at = time.monotonic()
        while True:
            if self._signal:
                return self._signal
            if cluster.has_ended():
                return "Ray has ended"
            try:
                self._take_requests(cluster)
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + self._times.look_s
                    if reason := self._look():
                        return reason
            except (StorageError, LocalRayError) as exc:  # a full disk: that may pass
                log.warning("The state folder can't be used now: %s", exc)
                time.sleep(self._times.look_s)
                if not self._folder.is_keeper_lock(self._lock):
                    return _FOLDER_GONE
            time.sleep(self._times.poll_s)

    def _take_requests(self, cluster: LocalCluster) -> None:
        for request in self._folder.manager_requests():
            watch = self._watches.get(request.storage)
            if watch is None:
                watch = self._watches[request.storage] = ManagerWatch(
                    cluster, request.storage, report=self._report, times=self._times.watch
                )
            watch.ask(request.location)

    def _report(self, storage: str, problem: str, is_transient: bool) -> None:
        with self._reporting:
            self._reports += 1
            report = ManagerReport(
                keeper_id=self._state.keeper_id,
                number=self._reports,
                storage=storage,
                problem=problem,
                is_transient=is_transient,
            )
            try:
                self._folder.report_manager(report)
            except StorageError as exc:  # the request is still there, and is answered again
                log.warning("The manager can't be reported: %s", exc)

    def _look(self) -> str:
        """Why it has to end, ``""`` if it has not."""
        if not self._folder.is_keeper_lock(self._lock):
            return _FOLDER_GONE
        if time.monotonic() - self._kept_at >= self._times.keep_s:
            self._folder.keep()
            self._kept_at = time.monotonic()
        if self._folder.read_state() != self._state:  # it could not be written, or was deleted
            self._folder.write_state(self._state)
        if self._is_idle() and self._says_ending() and self._is_idle_now():
            return f"it has been idle for {self._idle_s:g} s"
        return ""

    def _is_idle(self) -> bool:
        """True if nothing has been left to do for long enough, as of the last looks."""
        try:
            with self._folder.door(timeout_s=0):
                present = self._folder.presences()
        except DoorBusyError:
            return False
        if present:
            self._idle_s = max(present, key=lambda presence: presence.since).idle_s
        if present or any(watch.is_busy for watch in self._watches.values()):
            self._busy_at = time.monotonic()
            return False
        return time.monotonic() - self._busy_at >= self._idle_s

    def _says_ending(self) -> bool:
        """True if no process has come meanwhile: from here on, they wait for the end."""
        with self._folder.door(timeout_s=self._times.door_timeout_s):
            if self._folder.presences() or self._folder.manager_requests():
                return False
            self._say("ending")
            return True

    def _is_idle_now(self) -> bool:
        """True if no manager holds anything; what was submitted meanwhile runs on otherwise."""
        deadline = time.monotonic() + self._times.answer_timeout_s
        for watch in self._watches.values():
            if not watch.is_idle_now(max(0.0, deadline - time.monotonic())):
                self._busy_at = time.monotonic()
                self._say("running")
                return False
        return True

    # ---- its end

    def _end(self, cluster: LocalCluster) -> None:
        for watch in self._watches.values():
            watch.close()
        with (
            suppress(StorageError, LocalRayError),
            self._folder.door(timeout_s=self._times.door_timeout_s),
        ):
            self._say("ending")
        # Ray's processes end with this one. What waits for them in vain must not.
        timer = threading.Timer(self._times.stop_timeout_s, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            cluster.stop()
        except Exception:  # of Ray: of any kind
            log.exception("Ray did not end as it should")
        timer.cancel()
        with (
            suppress(StorageError, LocalRayError),
            self._folder.door(timeout_s=self._times.door_timeout_s),
        ):
            if self._folder.is_keeper_lock(self._lock):
                self._folder.clear()

    def _say(self, phase: Phase) -> None:
        state = replace(self._state, phase=phase)
        if phase == "running":
            self._state = state  # if it can't be written now, the next look does it
        self._folder.write_state(state)
        self._state = state

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signal = f"its process was sent {signal.Signals(number).name}"

    def _give_up(self) -> None:
        log.error(
            "Ray has not ended after %g s: its processes are killed", self._times.stop_timeout_s
        )
        logging.shutdown()
        os._exit(1)


_FOLDER_GONE = "its folder was deleted, so that no process finds it any more"


def run_keeper(
    folder: StateFolder,
    size: Size,
    *,
    keeper_id: str,
    lock: int,
    idle_s: float,
    cluster: str,
) -> int:
    """Be the keeper, in a process of its own; returns its exit code.

    :param cluster: the import path of the class of its cluster.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    state = KeeperState(
        keeper_id=keeper_id,
        process=Process.current(),
        phase="starting",
        since=time.time(),
        prefix=os.path.realpath(sys.prefix),
        package_version=__version__,
        ray_version=importlib.metadata.version("ray"),
        size=size,
        cluster_id="",
        address="",
        token_file=folder.token_path,
    )
    keeper = Keeper(folder, lambda: load_function(cluster)(), state=state, lock=lock, idle_s=idle_s)
    return keeper.run()
