"""A person suspends a workflow in the UI: the task that waits for it fails, and is not retried."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException
from sample_records import status_record

from airflow_provider_rayworkflow.clusters.hosts import engine_for
from airflow_provider_rayworkflow.exceptions import RayWorkflowSuspendedError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator
from airflow_provider_rayworkflow.operators.output import output_of
from airflow_provider_rayworkflow.tries.run_spec import RunSpec
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

RECORD = status_record(WorkflowStatus.RESUMABLE, number=1, stopped_by="anybody")
SUSPENDED = StoredWorkflow(record=RECORD, status=WorkflowStatus.RESUMABLE)


def test_the_task_fails_and_says_how_to_resume():
    operator = RayWorkflowRunOperator(task_id="t", workflow="pipelines.flights:daily")
    with pytest.raises(
        RayWorkflowSuspendedError, match="Clear the task instance to resume"
    ) as raised:
        output_of(SUSPENDED, log=operator.log)
    assert isinstance(raised.value, AirflowFailException)


def test_a_try_does_not_resume_what_a_person_has_suspended():
    engine = engine_for(
        RayWorkflowHook(), RunSpec(workflow_id="w"), token="try", unreachable_timeout_s=0.0
    )
    assert not engine.was_stopped_by_other(SUSPENDED)
