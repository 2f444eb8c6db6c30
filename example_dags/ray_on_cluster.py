"""A workflow by import path: its code is shipped with the task and imported on the cluster only."""

from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

with DAG("ray_on_cluster", schedule=None):
    RayWorkflowRunOperator(
        task_id="common_words",
        workflow="pipelines.words:common_words",
        arguments={"lines": ["One fish two fish", "Red fish blue fish"], "n": 1},
        runtime_env={
            "py_modules": [str(Path(__file__).parent / "pipelines")],
            "env_vars": {"RUN": "{{ run_id }}"},
        },
        retries=2,
    )
