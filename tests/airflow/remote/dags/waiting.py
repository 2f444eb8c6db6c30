"""A DAG for each way in which a task waits, or is kept from it."""

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

WITNESS = os.environ.get("WITNESS", "")
SHIPPED = os.environ.get("SHIPPED", "")


def dag(name: str, *, workflow: str = "pipeline:gated", **arguments: object) -> None:
    with DAG(name, schedule=None):
        RayWorkflowRunOperator(
            task_id="t",
            workflow=workflow,
            arguments={"folder": f"{WITNESS}/{name}"},
            runtime_env={"working_dir": SHIPPED},
            ray_workflow_conn_id="live",
            poll_interval_s=0.5,
            retry_delay=timedelta(0),
            **arguments,
        )


dag("deferred_fails", workflow="pipeline:fails_once", deferrable=True, retries=1)
dag("deferred_cleared", deferrable=True, on_kill="cancel")
dag("deferred_failed", deferrable=True)
dag("deferred_success", deferrable=True, on_kill="cancel")
dag("deferred_restart", deferrable=True)
dag("deferred_timeout", deferrable=True, retries=1, execution_timeout=timedelta(seconds=45))
dag("deferred_forgotten", deferrable=True, execution_timeout=timedelta(seconds=45))
