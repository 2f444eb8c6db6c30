"""Tells the manager which tasks workers have begun, if they take longer than a moment.

What the manager has handed to Ray may wait for a worker for long; only the worker knows when it
begins. One thread for each worker process looks once a second, so a short task costs nothing.
"""

from __future__ import annotations

import functools
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from airflow_provider_rayworkflow.workflow.model.records import RunningTask
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import get_manager
from airflow_provider_rayworkflow.workflow.scheduling.attempts import TaskRun

#: A task that ends sooner is never reported as running.
REPORT_AFTER_S = 1.0

#: The host name of this machine or pod.
NODE = platform.node()

# What runs in this process and has not been reported, each with its start.
_unreported: dict[int, tuple[TaskRun, float]] = {}


@contextmanager
def reported(run: TaskRun) -> Iterator[None]:
    """While this lasts, the task runs here, and the manager gets to know it."""
    _start_reporter()
    _unreported[id(run)] = (run, time.time())
    try:
        yield
    finally:
        _unreported.pop(id(run), None)


@functools.cache
def _start_reporter() -> None:
    threading.Thread(target=_report, name="running-tasks", daemon=True).start()


def _report() -> None:
    while True:
        time.sleep(REPORT_AFTER_S)
        for key, (run, started_at) in list(_unreported.items()):
            if time.time() - started_at >= REPORT_AFTER_S and key in _unreported:
                _unreported.pop(key, None)
                _tell(run, started_at)


def _tell(run: TaskRun, started_at: float) -> None:
    task = RunningTask(task_id=run.task_id, attempt=run.attempt, started_at=started_at, node=NODE)
    try:
        manager = get_manager()
        manager.ask.remote("has_begun", run.workflow_id, run.epoch, task)
    except (ValueError, ray.exceptions.RayError):
        pass  # the manager is being restarted: what is shown is not worth an error
