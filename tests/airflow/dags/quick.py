"""Tasks that end without Ray: what is stored already, and what can't be run."""

from datetime import date, timedelta

import ray
from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowResumeOperator, RayWorkflowRunOperator


def never(x=None):
    raise AssertionError("called although its workflow is stored or its arguments are wrong")


def no_graph():
    return 5


def graph():
    return ray.remote(never).bind()


with DAG("quick", schedule=None, default_args={"retries": 2, "retry_delay": timedelta(0)}):
    for name in ("taken", "not_json", "canceled"):
        RayWorkflowRunOperator(task_id=name, workflow=never, workflow_id=name)
    for name in ("taken", "canceled", "missing"):
        RayWorkflowResumeOperator(task_id=f"resume_{name}", workflow_id=name)
    RayWorkflowRunOperator(task_id="bad_id", workflow=never, workflow_id="../x")
    RayWorkflowRunOperator(task_id="bad_arguments", workflow=never, arguments={"x": date.max})
    RayWorkflowRunOperator(task_id="bad_metadata", workflow=never, metadata={"airflow": 1})
    RayWorkflowRunOperator(task_id="no_module", workflow="no_such_module:f")
    RayWorkflowRunOperator(task_id="no_graph", workflow=no_graph)
    RayWorkflowRunOperator(task_id="bad_host", workflow=never, ray_workflow_conn_id="remote")
    RayWorkflowRunOperator(task_id="bad_storage", workflow=graph, ray_workflow_conn_id="unwritable")
