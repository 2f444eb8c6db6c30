"""Workflows that fail at their first try."""

import os
import time
from datetime import timedelta

import ray
from airflow.sdk import DAG, task

from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

WITNESS = os.environ.get("WITNESS", "")
FACTOR = 7


def scaled(x):
    return FACTOR * x


def wait_until_inactive(context):
    """A manager suspends a workflow within two seconds. A retry that comes sooner would attach to it."""
    while (found := RayWorkflowHook().find(f"retries.in_time.{context['run_id']}")) is not None:
        if not found.status.is_active:
            return
        time.sleep(0.1)


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
        pre_execute=wait_until_inactive,
    )
    without_ray = RayWorkflowRunOperator(
        task_id="without_ray",
        workflow="counted:losing_ray",
        arguments={"folder": WITNESS + "/without_ray"},
    )

    @task.ray_workflow(task_id="mapped", poll_interval_s=0.1)
    def scale_and_shape(x: int, as_set: bool, name: str, ds=None):
        """Uses others of the file, on the workers too."""

        @ray.remote
        def scale():
            return {scaled(x)} if as_set else {name: scaled(x), "ds": ds}

        return scale.bind()

    mapped = scale_and_shape.partial(name="{{ dag.dag_id }}").expand_kwargs(
        [{"x": 3, "as_set": False}, {"x": 4, "as_set": True}]
    )

    @task
    def collect(output, outputs):
        return [output, *outputs]

    [in_time, without_ray] >> collect(by_path.output, mapped)
