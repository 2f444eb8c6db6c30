"""Tells the manager, while tasks run here, which it has begun, that they are alive, and what they print and log.

What the manager has handed to Ray may wait for a worker for long; only the worker knows when it
begins. One thread for each worker process looks once a second, and sends the lines of all tasks of a
storage in one call. So a short task costs nothing here: its lines go with its result. What the manager
has not confirmed comes again with the next call, or with the end of the task.
"""

from __future__ import annotations

import functools
import platform
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import ray

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.log_line import TaskLines
from airflow_provider_rayworkflow.workflow.model.records import RunningTask
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import manager_of
from airflow_provider_rayworkflow.workflow.runtime.names import current_location
from airflow_provider_rayworkflow.workflow.runtime.worker.heartbeats import beats_of
from airflow_provider_rayworkflow.workflow.runtime.worker.log_capture import read_descriptors
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog

log = get_logger(__name__)

#: How long lines wait in a worker at most, in seconds. A task that ends sooner is never reported as running.
INTERVAL_S = 1.0

#: The host name of this machine or pod.
NODE = platform.node()

_CONFIRM_TIMEOUT_S = 10.0

#: Sends lines; True if they have come to the manager for certain.
Send = Callable[[Sequence[TaskLines]], bool]


class reported:
    """While this lasts, the task of this log runs here: the manager gets to know it, and its lines as they come."""

    __slots__ = ("beats", "is_told", "location", "started_at", "task_log")

    def __init__(self, task_log: TaskLog) -> None:
        self.task_log = task_log
        # Of one that waits for an event, the manager knows that it has begun.
        self.is_told = task_log.run.is_event
        self.location = current_location()
        self.started_at = time.time()
        self.beats = beats_of(task_log)

    def __enter__(self) -> None:
        _start_reporter()
        _running.add(self)

    def __exit__(self, *error: object) -> None:
        _running.discard(self)


_running: set[reported] = set()


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
def _start_reporter() -> None:
    threading.Thread(target=_report, name="task-reports", daemon=True).start()


def _report() -> None:
    while True:
        time.sleep(INTERVAL_S)
        try:
            _report_all(list(_running))
        except Exception:  # without this thread, all later tasks of the process are silent
            log.exception("A report of running tasks has failed")


def _report_all(running: Sequence[reported]) -> None:
    for one in running:
        if not one.is_told and time.time() - one.started_at >= INTERVAL_S:
            one.is_told = True
            _tell(one)
    # Before what may fail or take long: a task without beats is stopped.
    for one in running:
        if one.beats is not None and one.beats.is_due():
            _tell_beat(one)
    if len(running) == 1:
        read_descriptors(running[0].task_log)
    for location in {one.location for one in running}:
        there = [one.task_log for one in running if one.location == location]
        send_waiting(there, functools.partial(_send, location))


def _tell(one: reported) -> None:
    run = one.task_log.run
    task = RunningTask(
        task_id=run.task_id, attempt=run.attempt, started_at=one.started_at, node=NODE
    )
    # While the manager is being restarted: what is shown is not worth an error.
    with suppress(ValueError, ray.exceptions.RayError):
        manager_of(one.location).ask.remote("attempts.has_begun", run.workflow_id, run.epoch, task)


def _tell_beat(one: reported) -> None:
    run = one.task_log.run
    with suppress(ValueError, ray.exceptions.RayError):
        manager_of(one.location).ask.remote(
            "attempts.beat", run.workflow_id, run.task_id, run.epoch, run.attempt
        )


def _send(location: str | None, lines: Sequence[TaskLines]) -> bool:
    try:
        ray.get(manager_of(location).ask.remote("logs.add", lines), timeout=_CONFIRM_TIMEOUT_S)
    except (ValueError, ray.exceptions.RayError):
        return False  # the manager is being restarted, or busy: they come again
    return True
