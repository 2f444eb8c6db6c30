"""How a run of a workflow ends, and what that makes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from airflow_provider_rayworkflow.workflow.exceptions import OwnershipLostError, text_of
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.failed_tasks import FailedTasks
from airflow_provider_rayworkflow.workflow.model.records import (
    Encoding,
    Form,
    JsonOutput,
    Result,
    TaskFailure,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus


class Stop(Enum):
    """Why a run is stopped from outside."""

    CANCEL = "cancel"
    SUSPEND = "suspend"
    #: The manager may not go on: another one owns the workflow.
    FENCED = "fenced"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended: by an output, a failure, or a stop.

    :ivar exception: the encoded exception of the failure, ``b""`` without one.
    :ivar failed_tasks: all that failed, where there are several; the failure is of the first one.
    :ivar lost: why the manager may not go on, where the run has found that out.
    """

    result: Result | None = None
    json_output: JsonOutput | None = None
    failure: TaskFailure | None = None
    exception: bytes = b""
    failed_tasks: FailedTasks | None = None
    stopped: Stop | None = None
    lost: OwnershipLostError | None = None


def status_after(outcome: Outcome) -> WorkflowStatus:
    """The status that a workflow has when a run of it has ended so."""
    if outcome.stopped is Stop.CANCEL:
        return WorkflowStatus.CANCELED
    if outcome.failure is not None and not outcome.failure.system:
        return WorkflowStatus.FAILED
    if outcome.stopped is not None or outcome.failure is not None:
        return WorkflowStatus.RESUMABLE
    return WorkflowStatus.SUCCESSFUL


def system_failure(
    exc: BaseException, *, task_id: str = "", remedy: str = "", cause: Cause = Cause.SYSTEM
) -> TaskFailure:
    """An error of the system as a failure.

    :param task_id: of the task that it kept from running to its end, ``""`` for none.
    :param remedy: lines to put before what the error says.
    """
    return TaskFailure(
        task_id=task_id,
        type=type(exc).__name__,
        message=remedy + text_of(exc),
        traceback="",
        cause=cause,
    )


def describe_output(result: Result | None, described: JsonOutput | None) -> JsonOutput:
    """The output for readers that must not unpickle.

    :param described: what the worker that made it said of it.
    """
    if result is None or result.form is Form.CAUGHT_ERROR:
        return JsonOutput(problem="the output is a caught exception")
    if described is None and result.encoding is Encoding.JSON and result.inline is not None:
        described = JsonOutput(value=json.loads(result.inline))
    if described is None:
        return JsonOutput(problem="the output is not JSON")
    if result.form is Form.CAUGHT_VALUE and not described.problem:
        return JsonOutput(value=[described.value, None])
    return described
