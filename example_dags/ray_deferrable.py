"""A long workflow that holds no worker's slot: once it runs on the cluster, the triggerer waits."""

from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

with DAG("ray_deferrable", schedule=None):
    RayWorkflowRunOperator(
        task_id="common_words",
        workflow="pipelines.words:common_words",
        arguments={"lines": ["One fish two fish"], "pause_s": 20.0},
        runtime_env={"py_modules": [str(Path(__file__).parent / "pipelines")]},
        deferrable=True,
        poll_interval_s=5,
        execution_timeout=timedelta(hours=6),  # over all of the wait; it suspends the workflow
        retries=2,  # and the next try resumes it
    )
