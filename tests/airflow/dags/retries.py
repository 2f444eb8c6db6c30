"""Workflows that fail at their first try."""

import os
from datetime import timedelta

import ray
from airflow.sdk import DAG, task

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

WITNESS = os.environ.get("WITNESS", "")
FACTOR = 7


def scaled(x):
    return FACTOR * x


def scale_and_shape(x: int, as_set: bool):
    """A function of the DAG file that uses others of the file, on the workers too."""

    @ray.remote
    def scale():
        return {scaled(x)} if as_set else {"scaled": scaled(x)}

    return scale.bind()


with DAG("retries", schedule=None, default_args={"retry_delay": timedelta(0)}):
    by_path = RayWorkflowRunOperator(
        task_id="by_path",
        workflow="counted:failing",
        arguments={"folder": WITNESS + "/by_path"},
        metadata={"owner": "{{ dag.dag_id }}"},
        retries=1,
    )
    in_time = RayWorkflowRunOperator(
        task_id="in_time",
        workflow="counted:slow",
        arguments={"folder": WITNESS + "/in_time"},
        execution_timeout=timedelta(hours=1),
        on_kill="cancel",
        retries=1,
    )
    without_ray = RayWorkflowRunOperator(
        task_id="without_ray",
        workflow="counted:losing_ray",
        arguments={"folder": WITNESS + "/without_ray"},
    )
    mapped = RayWorkflowRunOperator.partial(
        task_id="mapped", workflow=scale_and_shape, poll_interval_s=0.1
    ).expand(arguments=[{"x": 3, "as_set": False}, {"x": 4, "as_set": True}])

    @task
    def collect(output, outputs):
        return [output, *outputs]

    [in_time, without_ray] >> collect(by_path.output, mapped.output)
