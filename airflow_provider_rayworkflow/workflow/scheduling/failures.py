"""What follows from a failed attempt. Pure."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowTaskTimeoutError
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.codec import encode
from airflow_provider_rayworkflow.workflow.model.escalation import amounts_text
from airflow_provider_rayworkflow.workflow.model.records import (
    FailedAttempt,
    TaskFailure,
    TaskTimes,
)
from airflow_provider_rayworkflow.workflow.scheduling.attempts import InputsLost, Lost, Raised
from airflow_provider_rayworkflow.workflow.scheduling.budgets import (
    budget_of,
    killer_text,
    seems_to_kill_nodes,
)
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode

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


def timed_out(node: TaskNode, lost: Lost, now: float, *, is_silent: bool = False) -> Raised:
    """The end of an attempt that was stopped because its time was over.

    :param now: seconds since the epoch.
    :param is_silent: it was silent for too long.
    """
    options = node.task.options
    limit_s = options.heartbeat_timeout_s if is_silent else options.timeout_s
    error = WorkflowTaskTimeoutError(node.task_id, limit_s or 0, is_silent=is_silent)
    return Raised(
        failure=replace(
            lost.failure, type=type(error).__qualname__, message=str(error), cause=Cause.TIMEOUT
        ),
        exception=b"".join(encode(error).parts),
        retryable=True,
        times=TaskTimes(started_at=now, ended_at=now, attempt=node.attempts),
    )


def failed_attempt(node: TaskNode, failure: TaskFailure) -> FailedAttempt:
    """The attempt, as the progress of the workflow shows it."""
    return FailedAttempt(
        task_id=node.task_id,
        attempt=node.attempts,
        error=str(failure)[:_MAX_ERROR_LENGTH],
        cause=failure.cause,
        note=_note(node, failure.cause),
    )


def _note(node: TaskNode, cause: Cause) -> str:
    paid = node.paid(cause)
    if not node.spent.asks:
        return paid
    return f"{paid}; the next attempt asks for {amounts_text(node.spent.asks)}"


def failed_of(node: TaskNode, failure: TaskFailure) -> str:
    """What the last attempt of a task failed of, and whose budget is used up, if one is."""
    pays = budget_of(failure.cause, node.task.options).limit and node.spent.used
    return f"{failure.cause}; {node.paid(failure.cause)}" if pays else str(failure.cause)


def final_failure(node: TaskNode, failure: TaskFailure) -> TaskFailure:
    """The failure of an attempt that is the last one, with what to do where its own text can't say."""
    if seems_to_kill_nodes(node.spent, failure.cause, node.task.options):
        return replace(failure, message=killer_text() + failure.message)
    return failure


def too_many_rebuilds(node: TaskNode, lost: InputsLost, task_ids: list[str]) -> TaskFailure:
    """Why a run ends that has lost results more often than :data:`MAX_REBUILDS`.

    :param task_ids: of the tasks whose results the last attempt has missed.
    """
    return TaskFailure(
        task_id=node.task_id,
        type="InputsLost",
        message=f"{lost.reason} These are results of {task_ids}, which have run again "
        f"{MAX_REBUILDS} times.",
        traceback="",
        cause=Cause.SYSTEM,
    )
