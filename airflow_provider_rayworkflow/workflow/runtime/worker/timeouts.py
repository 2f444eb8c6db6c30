"""Time limits of tasks, kept on the worker, where the time begins when the task does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowTaskTimeoutError
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import manager_of
from airflow_provider_rayworkflow.workflow.scheduling.attempts import TaskRun

#: How long a task may go on after its time, in code that can't be interrupted or that catches
#: the error, before the manager has its process killed.
GRACE_S = 5.0


def time_limit(run: TaskRun) -> AbstractContextManager[None]:
    """Raise :class:`WorkflowTaskTimeoutError` in the task when its time is over."""
    limit = run.timeout_s
    if limit is None or threading.current_thread() is not threading.main_thread():
        return _NO_LIMIT
    return _limited(run, limit)


_NO_LIMIT = nullcontext()


@contextmanager
def _limited(run: TaskRun, limit: float) -> Iterator[None]:
    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise WorkflowTaskTimeoutError(run.task_id, limit)

    # Before it begins: code that holds the interpreter's lock lets no thread of ours ask later.
    _ask_to_be_killed(run, limit + GRACE_S)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ask_to_be_killed(run: TaskRun, after_s: float) -> None:
    manager = manager_of()
    manager.ask.remote(
        "attempts.kill_overdue", run.workflow_id, run.task_id, run.epoch, run.attempt, after_s
    )
