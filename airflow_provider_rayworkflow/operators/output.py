"""What a task returns or raises when its workflow has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowCanceledError,
    RayWorkflowFailedError,
    RayWorkflowFailedForGoodError,
    RayWorkflowInterruptedError,
    RayWorkflowOutputError,
    RayWorkflowSuspendedError,
)
from airflow_provider_rayworkflow.workflow.format.shown_text import shown_text
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_provider_rayworkflow.hooks import StoredWorkflow
    from airflow_provider_rayworkflow.workflow.model.records import StatusRecord, TaskFailure


def output_of(ended: StoredWorkflow, *, log: Logger, multiple_outputs: bool = False) -> Any:
    """The output of a successful workflow; None where it can't be an XCom.

    :raises RayWorkflowOutputError: when ``multiple_outputs`` can't take it apart.
    :raises RayWorkflowFailedError: when a task failed.
    :raises AirflowSkipException: when the task that failed asks to skip.
    :raises RayWorkflowCanceledError: when the workflow was canceled.
    :raises RayWorkflowSuspendedError: when a person suspended it.
    :raises RayWorkflowInterruptedError: when it was interrupted otherwise.
    """
    from airflow_provider_rayworkflow.workflow.storage.mailbox import ANYBODY

    record = ended.record
    failure = record.failure
    if ended.status is WorkflowStatus.SUCCESSFUL:
        return _json_output_of(record, log, multiple_outputs)
    if ended.status is WorkflowStatus.CANCELED:
        raise RayWorkflowCanceledError(record.workflow_id)
    if ended.status is WorkflowStatus.FAILED and failure is not None:
        _log_failed_tasks(record, log)
        raise _error_of(record.workflow_id, failure, log)
    cause = ""
    if ended.has_lost_owner:
        reason = "the process that ran it is gone"
    elif failure is not None:
        _log_failed_tasks(record, log)
        reason, cause = str(failure), failure.cause.value
    elif record.stopped_by == ANYBODY:
        raise RayWorkflowSuspendedError(record.workflow_id)
    else:
        reason = "it was suspended"
    raise RayWorkflowInterruptedError(record.workflow_id, reason, cause=cause)


def _log_failed_tasks(record: StatusRecord, log: Logger) -> None:
    if (failed := record.failed_tasks) is not None:
        table = "\n".join(failed.table())
        log.error("Workflow %s: %d tasks failed\n%s", record.workflow_id, failed.total, table)


def _error_of(workflow_id: str, failure: TaskFailure, log: Logger) -> Exception:
    """What the task raises: what the workflow task asked for by an exception of Airflow's."""
    if failure.asks_to_skip:
        return AirflowSkipException(
            f"Task {failure.task_id!r} of workflow {workflow_id!r} asks to skip: "
            f"{shown_text(failure.message)}"
        )
    log.error(
        "Workflow %s: task %s failed\n%s",
        workflow_id,
        shown_text(failure.task_id),
        shown_text(failure.traceback),
    )
    if failure.asks_not_to_retry:
        return RayWorkflowFailedForGoodError(workflow_id, failure)
    return RayWorkflowFailedError(workflow_id, failure)


def _json_output_of(record: StatusRecord, log: Logger, multiple_outputs: bool) -> Any:
    from airflow_provider_rayworkflow.tries.xcom import why_not_in_xcom
    from airflow_provider_rayworkflow.workflow.model.records import JsonOutput

    output = record.output or JsonOutput(problem="it was not stored as JSON")
    problem = output.problem or why_not_in_xcom(output.value)
    if multiple_outputs and not problem and not isinstance(output.value, dict):
        problem = f"the output is a {type(output.value).__name__}"
    if not problem:
        return output.value
    if multiple_outputs:
        raise RayWorkflowOutputError(record.workflow_id, shown_text(problem))
    log.warning(
        "Workflow %s was successful, and its output is not in XCom: %s",
        record.workflow_id,
        shown_text(problem),
    )
    return None
