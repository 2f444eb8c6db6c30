"""Sends the manager what long tasks print, while they run: once a second, all of a process in one call.

What the manager has not confirmed comes again with the next call, or with the end of the task. A
short task costs nothing here: its lines go with its result.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ray

from airflow_provider_rayworkflow.workflow.model.log_line import TaskLines
from airflow_provider_rayworkflow.workflow.runtime.handles import manager_of
from airflow_provider_rayworkflow.workflow.runtime.names import current_location
from airflow_provider_rayworkflow.workflow.runtime.worker.log_capture import read_descriptors
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog

#: How long lines wait in a worker at most, in seconds.
SEND_INTERVAL_S = 1.0

_CONFIRM_TIMEOUT_S = 10.0

#: Sends lines; True if they have come to the manager for certain.
Send = Callable[[Sequence[TaskLines]], bool]

#: Each with the storage of its workflow.
_running: dict[int, tuple[TaskLog, str | None]] = {}


@contextmanager
def sent_meanwhile(task_log: TaskLog) -> Iterator[None]:
    """While this lasts, the lines of a task are sent as they come."""
    _start_sender()
    _running[id(task_log)] = task_log, current_location()
    try:
        yield
    finally:
        _running.pop(id(task_log), None)


def send_waiting(task_logs: Sequence[TaskLog], send: Send) -> None:
    """Send what waits in some logs, in one call; nothing if nothing does."""
    begun = [(one, lines) for one in task_logs if (lines := one.begin_to_send()) is not None]
    if not begun:
        return
    is_confirmed = False
    try:
        is_confirmed = send([lines for _, lines in begun])
    finally:
        for task_log, _ in begun:
            task_log.sent(is_confirmed=is_confirmed)


@functools.cache
def _start_sender() -> None:
    threading.Thread(target=_work, name="task-logs", daemon=True).start()


def _work() -> None:
    while True:
        time.sleep(SEND_INTERVAL_S)
        running = list(_running.values())
        if len(running) == 1:
            read_descriptors(running[0][0])
        for location in {location for _, location in running}:
            there = [task_log for task_log, at in running if at == location]
            send_waiting(there, functools.partial(_send, location))


def _send(location: str | None, lines: Sequence[TaskLines]) -> bool:
    try:
        ray.get(manager_of(location).ask.remote("logs.add", lines), timeout=_CONFIRM_TIMEOUT_S)
    except (ValueError, ray.exceptions.RayError):
        return False  # the manager is being restarted, or busy: they come again
    return True
