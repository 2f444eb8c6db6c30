"""When the manager is told that an attempt is not silent."""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import TaskLog

_PART = 10  # so many times in its time of silence at most


class Beats:
    """Whether one attempt has a beat to tell; asked once a second.

    :param clock: in seconds.
    """

    def __init__(self, task_log: TaskLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = task_log
        self._clock = clock
        self._interval_s = (task_log.run.heartbeat_timeout_s or 0.0) / _PART
        self._told = task_log.beats
        self._told_at = clock()

    def is_due(self) -> bool:
        """True if the attempt has beaten since this was True, and the manager has not just been told."""
        beats, now = self._log.beats, self._clock()
        if not (self._log.is_busy or beats != self._told):
            return False
        if now - self._told_at < self._interval_s:
            return False
        self._told, self._told_at = beats, now
        return True


def beats_of(task_log: TaskLog) -> Beats | None:
    """None for a task that may be silent."""
    run = task_log.run
    return None if run.heartbeat_timeout_s is None or run.is_event else Beats(task_log)
