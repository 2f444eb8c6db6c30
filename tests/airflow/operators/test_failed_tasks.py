"""Workflows that go on after a failure: what their task instances say, and how they end."""

from __future__ import annotations

import logging

import pytest
from sample_records import status_record

from airflow_provider_rayworkflow.decorators import ray_workflow_task
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowFailedError,
    RayWorkflowInterruptedError,
)
from airflow_provider_rayworkflow.hooks import StoredWorkflow
from airflow_provider_rayworkflow.operators import RayWorkflowResumeOperator, RayWorkflowRunOperator
from airflow_provider_rayworkflow.operators.output import output_of
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.failed_tasks import FailedTask, FailedTasks
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord, TaskFailure
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

log = logging.getLogger(__name__)


def failed(status: WorkflowStatus, cause: Cause) -> StoredWorkflow:
    failures = [
        TaskFailure(task_id=name, type="E", message="bad", traceback="", cause=cause)
        for name in ("day_3", "day_7")
    ]
    record = status_record(
        status,
        failure=failures[0],
        failed_tasks=FailedTasks.of([FailedTask.of(one, 1) for one in failures]),
    )
    return StoredWorkflow(record=record, status=status)


@pytest.mark.parametrize(
    ("status", "cause", "error"),
    [
        (WorkflowStatus.FAILED, Cause.TIMEOUT, RayWorkflowFailedError),
        (WorkflowStatus.RESUMABLE, Cause.CRASHED, RayWorkflowInterruptedError),
    ],
)
def test_the_log_has_a_table_of_all_failures_and_the_error_is_the_first_one(
    status: WorkflowStatus, cause: Cause, error: type[Exception], caplog: pytest.LogCaptureFixture
):
    ended = failed(status, cause)
    with pytest.raises(error, match="bad"):
        output_of(ended, log=log)
    assert (
        "Workflow w: 2 tasks failed\n"
        f"FAILED TASK  ATTEMPT  {'CAUSE':{len(cause)}}  ERROR\n"
        f"day_3        1        {cause}  E: bad\n"
        f"day_7        1        {cause}  E: bad"
    ) in caplog.text


def test_a_status_with_several_failures_is_read_as_it_was_written():
    record = failed(WorkflowStatus.FAILED, Cause.APPLICATION).record
    assert StatusRecord.from_json(record.to_json()) == record


def test_an_unknown_policy_is_refused_where_the_dag_is_parsed():
    with pytest.raises(ValueError, match=r"on_failure must be one of .*'go on'"):
        RayWorkflowRunOperator(task_id="t", workflow="m:f", on_failure="go on")
    with pytest.raises(ValueError, match=r"on_failure must be one of .*'go on'"):
        RayWorkflowResumeOperator(task_id="t", workflow_id="w", on_failure="go on")


def test_a_run_stops_by_default_and_a_resume_does_as_the_run_before():
    assert RayWorkflowRunOperator(task_id="t", workflow="m:f").on_failure == "stop"
    assert RayWorkflowResumeOperator(task_id="t", workflow_id="w").on_failure is None


def test_the_decorator_takes_the_policy():
    @ray_workflow_task(on_failure="finish")
    def flights():
        """Never called here."""

    assert flights.kwargs["on_failure"] == "finish"
