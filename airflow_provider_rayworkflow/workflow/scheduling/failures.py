"""What follows from a failed attempt. Pure."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowTaskTimeoutError
from airflow_provider_rayworkflow.workflow.model.codec import encode
from airflow_provider_rayworkflow.workflow.model.records import (
    FailedAttempt,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.scheduling.attempts import InputsLost, Lost, Raised
from airflow_provider_rayworkflow.workflow.scheduling.node import Node

#: How often a run may lose results that it had, before it is left for a later resume.
MAX_REBUILDS = 10

_MAX_ERROR_LENGTH = 300


class FailureAction(Enum):
    """What follows from a failed attempt."""

    RETRY = auto()
    #: The nearest task that catches exceptions gets it as its result.
    CATCH = auto()
    FAIL = auto()
    #: The task's result is of no use any more.
    IGNORE = auto()


def timed_out(node: Node, lost: Lost, now: float, *, is_silent: bool = False) -> Raised:
    """The end of an attempt that was stopped because its time was over.

    :param now: seconds since the epoch.
    :param is_silent: it was silent for too long.
    """
    options = node.task.options
    limit_s = options.heartbeat_timeout_s if is_silent else options.timeout_s
    error = WorkflowTaskTimeoutError(node.task_id, limit_s or 0, is_silent=is_silent)
    return Raised(
        failure=replace(
            lost.failure, type=type(error).__qualname__, message=str(error), system=False
        ),
        exception=b"".join(encode(error).parts),
        retryable=True,
        times=TaskTimes(started_at=now, ended_at=now, attempt=node.attempts),
    )


def failed_attempt(node: Node, failure: TaskFailure) -> FailedAttempt:
    """The attempt, as the progress of the workflow shows it."""
    return FailedAttempt(
        task_id=node.task_id,
        attempt=node.attempts,
        error=str(failure)[:_MAX_ERROR_LENGTH],
    )


def too_many_rebuilds(node: Node, lost: InputsLost, task_ids: list[str]) -> TaskFailure:
    """Why a run ends that has lost results more often than :data:`MAX_REBUILDS`.

    :param task_ids: of the tasks whose results the last attempt has missed.
    """
    return TaskFailure(
        task_id=node.task_id,
        type="InputsLost",
        message=f"{lost.reason} These are results of {task_ids}, which have run again "
        f"{MAX_REBUILDS} times.",
        traceback="",
        system=True,
    )
