"""Goes on with workflows that others have left."""

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import (
    RayWorkflowResumeAllOperator,
    RayWorkflowResumeOperator,
)

with DAG("resumes", schedule=None):
    failed = RayWorkflowResumeOperator(task_id="failed", workflow_id="{{ 'failed' }}")
    stopped = RayWorkflowResumeAllOperator(task_id="stopped")
    # The operator before it does not wait for the workflows.
    ended = RayWorkflowResumeOperator(task_id="ended", workflow_id="stopped")
    failed >> stopped >> ended
