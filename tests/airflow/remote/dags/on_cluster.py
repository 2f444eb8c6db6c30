"""Workflows on a remote cluster."""

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

WITNESS = os.environ.get("WITNESS", "")
SHIPPED = os.environ.get("SHIPPED", "")


def doubled(x):
    return 2 * x


def double(x: int):
    """A function of the DAG file that uses others of the file."""
    import ray

    @ray.remote
    def twice():
        return {"doubled": doubled(x)}

    return twice.bind()


with DAG("on_cluster", schedule=None, default_args={"retry_delay": timedelta(0)}):
    by_path = RayWorkflowRunOperator(
        task_id="by_path",
        workflow="pipeline:daily",
        arguments={"folder": WITNESS, "secret": "{{ 'swordfish' }}"},
        runtime_env={"working_dir": SHIPPED, "env_vars": {"FLAVOUR": "{{ dag.dag_id }}"}},
        retries=1,
    )
    by_function = RayWorkflowRunOperator(
        task_id="by_function", workflow=double, arguments={"x": 21}
    )
    no_module = RayWorkflowRunOperator(task_id="no_module", workflow="no_such_module:daily")
    bad_environment = RayWorkflowRunOperator(
        task_id="bad_environment",
        workflow="pipeline:daily",
        arguments={"folder": WITNESS, "secret": ""},
        runtime_env={"working_dir": "https://127.0.0.1:9/no-such-code.zip"},
    )
    no_cluster = RayWorkflowRunOperator(
        task_id="no_cluster",
        workflow="pipeline:daily",
        ray_workflow_conn_id="no_cluster",
        unreachable_timeout_s=1,
    )
