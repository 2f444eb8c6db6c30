"""A workflow by import path; a test changes a module that its tasks import."""

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

with DAG("importing", schedule=None):
    RayWorkflowRunOperator(
        task_id="t",
        workflow="imported:graph",
        ray_workflow_conn_id="live",
        poll_interval_s=0.2,
        on_clear="restart",
    )
