"""The local Rays of a user, for people, and their end by a person's wish."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.local_ray.errors import LocalRayError
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder, list_folders
from airflow_provider_rayworkflow.workflow.local_ray.leftovers import end_leftovers
from airflow_provider_rayworkflow.workflow.local_ray.state import KeeperState, Presence
from airflow_provider_rayworkflow.workflow.storage.leases import Process

_DOOR_TIMEOUT_S = 10.0
_POLL_S = 0.1
_LEFTOVERS_S = 5.0
_KILL_TIMEOUT_S = 10.0  # for a killed process to be gone


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownLocalRay:
    """A local Ray that lives.

    :ivar state: None if its keeper has not said anything yet, or nothing that can be read.
    :ivar storages: the URIs of those that have a manager.
    :ivar present: the processes that use it now.
    """

    folder: StateFolder
    state: KeeperState | None
    storages: Sequence[str]
    present: Sequence[Presence]


def list_local_rays(root: str) -> list[ShownLocalRay]:
    """The local Rays that live and have their states below a folder.

    :raises LocalRayError: when the folder can't be used.
    """
    return [shown for folder in list_folders(root) if (shown := _look(folder))]


def end_local_ray(shown: ShownLocalRay, *, timeout_s: float) -> bool:
    """End a local Ray; what runs there is suspended, and can be resumed.

    :param timeout_s: how long it gets before its processes are killed.
    :returns: False if they had to be.
    :raises LocalRayError: when its process is not known.
    """
    folder, state = shown.folder, shown.state
    if state is None or not state.process.is_here:
        raise LocalRayError(
            f"The process of the local Ray in {folder.path!r} is not known: look for it with "
            f"fuser -v {folder.path}/keeper.lock, and end it."
        )
    _send(state.process, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while _lives(folder, state):
        if time.monotonic() >= deadline:
            _kill(folder, state)
            return False
        time.sleep(_POLL_S)
    return True


def _look(folder: StateFolder) -> ShownLocalRay | None:
    with folder.door(timeout_s=_DOOR_TIMEOUT_S):
        if not folder.has_keeper():
            return None
        state = folder.read_state()
        return ShownLocalRay(
            folder=folder,
            state=state,
            storages=sorted(
                report.storage
                for report in folder.reports()
                if state and report.keeper_id == state.keeper_id and not report.problem
            ),
            present=sorted(folder.presences(), key=lambda presence: presence.since),
        )


def _lives(folder: StateFolder, state: KeeperState) -> bool:
    """True as long as it is the keeper that was looked at."""
    with folder.door(timeout_s=_DOOR_TIMEOUT_S):
        if not folder.has_keeper():
            return False
        now = folder.read_state()
        return now is None or now.keeper_id == state.keeper_id


def _send(process: Process, number: signal.Signals) -> None:
    if not process.is_gone():
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _kill(folder: StateFolder, state: KeeperState) -> None:
    """Kill a keeper that does not end; Ray ends with it, and what does not is killed, too."""
    _send(state.process, signal.SIGKILL)
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    # Its first thread is gone before the others are, and only the last one lets go of its lock.
    while _lives(folder, state) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    with folder.door(timeout_s=_DOOR_TIMEOUT_S):
        if not folder.has_keeper():  # else its processes are that one's affair
            end_leftovers(folder, keeper_id="", wait_s=_LEFTOVERS_S)
            folder.clear()
