"""Start a workflow without waiting, then wait for one of its tasks, and for its end."""

from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator
from airflow_provider_rayworkflow.sensors import RayWorkflowSensor

with DAG("ray_sensor", schedule=None):
    started = RayWorkflowRunOperator(
        task_id="started",
        workflow="pipelines.words:common_words",
        workflow_id="words-{{ run_id }}",
        arguments={"lines": ["One fish two fish"], "pause_s": 1.0},
        runtime_env={"py_modules": [str(Path(__file__).parent / "pipelines")]},
        wait=False,
    )
    counted = RayWorkflowSensor(
        task_id="counted",
        workflow_id="words-{{ run_id }}",
        workflow_task_id="count",
        poke_interval=2,
    )
    finished = RayWorkflowSensor(
        task_id="finished",
        workflow_id="words-{{ run_id }}",
        deferrable=True,
        poke_interval=2,
    )
    started >> counted >> finished
