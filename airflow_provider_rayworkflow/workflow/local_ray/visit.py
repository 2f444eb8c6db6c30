"""One process's use of the local Ray, which is started if need be."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.local_ray.errors import LocalRayError, ManagerStartError
from airflow_provider_rayworkflow.workflow.local_ray.folder import HeldPresence, StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.launch import Launcher
from airflow_provider_rayworkflow.workflow.local_ray.state import (
    KeeperState,
    ManagerReport,
    ManagerRequest,
    Presence,
)
from airflow_provider_rayworkflow.workflow.storage import shown

log = get_logger(__name__)

# The keeper tries five times. On two CPUs with thirty processes that could run, Ray took 80 s to
# give up on itself, which it does 30 s after its last process has started.
_START_TIMEOUT_S = 600.0

_DOOR_TIMEOUT_S = 90.0
_POLL_S = 0.05
_LOOK_S = 1.0  # how often to see behind the door whether the keeper lives


@dataclass(kw_only=True, slots=True)
class _Wait:
    """What a caller has seen, so that it knows what is new.

    :ivar failure: the keeper that had failed to start when it began to wait.
    :ivar report: what was the latest about its storage's manager then.
    :ivar seen: what was the latest when it last looked behind the door.
    :ivar said: lines that its log has: two that take turns would fill it.
    """

    deadline: float
    failure: str
    report: tuple[str, int]
    seen: tuple[str, int]
    said: set[str] = field(default_factory=set)


class LocalRayVisit:
    """While it lasts, the local Ray does not end because it is idle.

    A process that dies has left. Not for several threads at the same time.

    :param size: the Ray that is wanted; another one that runs is used all the same.
    :param idle_s: how long Ray shall stay when nothing is left to do. 0: no longer than that.
    :param launcher: how a keeper is started where none lives.
    :param timeout_s: how long one :meth:`ensure` may take.
    """

    def __init__(
        self,
        folder: StateFolder,
        *,
        size: Size,
        idle_s: float,
        launcher: Launcher,
        timeout_s: float = _START_TIMEOUT_S,
    ) -> None:
        self._folder = folder
        self._size = size
        self._idle_s = idle_s
        self._launcher = launcher
        self._timeout_s = timeout_s
        self._presence: HeldPresence | None = None
        self._sized_for = ""

    def ensure(self, storage: str, location: str = "") -> KeeperState:
        """Return when a manager for the storage is up. Does not connect to Ray.

        It takes milliseconds where that is so already. A caller that waits for what it has submitted
        calls it again every few seconds: Ray may have ended meanwhile, and is replaced then.

        :param storage: its URI, by which the manager is named.
        :param location: what opens it for Ray, by default the URI; may have credentials in it.
        :returns: the state of the keeper, whose id is that of the cluster.
        :raises ManagerStartError: when the storage can't be used.
        :raises LocalRayError: when Ray does not start, or not in time.
        """
        self._folder.make()
        request = ManagerRequest(storage=storage, location=location or storage)
        failure, report = self._folder.read_failure(), self._folder.read_report(storage)
        wait = _Wait(
            deadline=time.monotonic() + self._timeout_s,
            failure=failure.keeper_id if failure else "",
            report=_stamp(report),
            seen=_stamp(report),
        )
        while True:
            if (state := self._look_behind_door(request, wait)) is not None:
                self._compare_size(state)
                return state
            self._wait_for_news(request, wait)

    def close(self) -> None:
        """Leave. What runs goes on; Ray may end when nothing is left to do."""
        if self._presence is not None:
            self._folder.leave(self._presence)
            self._presence = None

    def _look_behind_door(self, request: ManagerRequest, wait: _Wait) -> KeeperState | None:
        """Start what is missing, and ask for what is not up yet; the state if nothing is."""
        folder = self._folder
        timeout_s = min(_DOOR_TIMEOUT_S, max(1.0, wait.deadline - time.monotonic()))
        with folder.door(timeout_s=timeout_s, on_wait=lambda: self._say(wait, _ANOTHER_STARTS)):
            if self._presence is None:
                presence = Presence(pid=os.getpid(), since=time.time(), idle_s=self._idle_s)
                self._presence = folder.enter(presence)
            if not folder.has_keeper():
                self._check_failure(wait)
                self._start(wait)
                self._sized_for = ""
            state, report = folder.read_state(), folder.read_report(request.storage)
            wait.seen = _stamp(report)
            if state is not None and state.phase == "running":
                if _is_up(report, state):
                    return state
                self._check_report(report, state, wait)
            if state is None or state.phase != "ending":
                folder.request_manager(request)
        return None

    def _start(self, wait: _Wait) -> None:
        found = self._folder.read_state()
        if found is not None:
            log.warning("The local Ray of process %d is gone: %s", found.process.pid, _why(found))
        self._launcher.launch(self._folder, self._size, idle_s=self._idle_s)
        self._say(wait, f"The local Ray starts; its log is {self._folder.log_path}")

    def _wait_for_news(self, request: ManagerRequest, wait: _Wait) -> None:
        """Return when something may have changed, after a second at the latest."""
        folder = self._folder
        until = time.monotonic() + _LOOK_S
        while time.monotonic() < until:
            state = folder.read_state()
            if _stamp(folder.read_report(request.storage)) not in (wait.seen, _NO_REPORT):
                return
            if time.monotonic() >= wait.deadline:
                raise LocalRayError(self._late(state))
            if state is not None and state.phase == "starting":
                self._say(
                    wait, f"Waiting for the local Ray, which process {state.process.pid} starts"
                )
            elif state is not None and state.phase == "ending":
                self._say(wait, f"Waiting for the end of the local Ray of {state.process.pid}")
            time.sleep(_POLL_S)

    def _check_failure(self, wait: _Wait) -> None:
        """Raise if a keeper has failed to start since we wait."""
        failure = self._folder.read_failure()
        if failure is not None and failure.keeper_id != wait.failure:
            raise LocalRayError(
                f"The local Ray does not start: {failure.message} Its log is "
                f"{self._folder.log_path!r}."
            )

    def _check_report(self, report: ManagerReport | None, state: KeeperState, wait: _Wait) -> None:
        """Raise if the keeper has failed to start the storage's manager since we wait."""
        if report is None or report.keeper_id != state.keeper_id or not report.problem:
            return
        if _stamp(report) != wait.report:
            raise ManagerStartError(
                f"The local Ray can't run workflows of {shown(report.storage)!r}: {report.problem}",
                is_transient=report.is_transient,
            )

    def _late(self, state: KeeperState | None) -> str:
        if state is None:
            stands = "it has not said a word"
        elif state.phase == "running":
            stands = f"it runs as process {state.process.pid} and does not answer"
        else:
            stands = f"it is {state.phase} as process {state.process.pid}"
        return (
            f"The local Ray is not ready after {self._timeout_s:g} s: {stands}. See "
            f"{self._folder.log_path!r}; `rayworkflow local stop` ends it."
        )

    def _compare_size(self, state: KeeperState) -> None:
        """Say once for each keeper if Ray is of another size than is wanted."""
        if self._sized_for == state.keeper_id:
            return
        self._sized_for = state.keeper_id
        if differences := state.size.differences(self._size):
            log.warning(
                "The local Ray runs already, and has %s: what it has holds until it ends, "
                "%g s after its last workflow or by `rayworkflow local stop`.",
                ", ".join(differences),
                self._idle_s,
            )

    def _say(self, wait: _Wait, line: str) -> None:
        if line not in wait.said:
            wait.said.add(line)
            log.info("%s", line)


_ANOTHER_STARTS = "Waiting for another process, which starts the local Ray"


_NO_REPORT = ("", 0)


def _stamp(report: ManagerReport | None) -> tuple[str, int]:
    return (report.keeper_id, report.number) if report else _NO_REPORT


def _is_up(report: ManagerReport | None, state: KeeperState) -> bool:
    return report is not None and report.keeper_id == state.keeper_id and not report.problem


def _why(state: KeeperState) -> str:
    """Why a keeper is gone whose state was found, for people."""
    if not state.process.is_here:
        return "the machine has been started again since"
    if state.process.is_gone():
        return "it has ended without a word, or was killed"
    return "it has let go of its lock"
