"""A DAG for each way in which a task waits, or is kept from it."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, task

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


dag("deferred_fails", workflow="pipeline:fails_behind_gate", deferrable=True, retries=1)
dag("deferred_cleared", deferrable=True, on_kill="cancel")
dag("deferred_failed", deferrable=True)
dag("deferred_success", deferrable=True, on_kill="cancel")
dag("deferred_restart", deferrable=True)
# Longer than a busy machine takes to start a manager. The second try has to end in that time, too.
dag(
    "deferred_timeout",
    workflow="pipeline:gated_for_once",
    deferrable=True,
    retries=1,
    execution_timeout=timedelta(minutes=4),
)
dag("deferred_forgotten", deferrable=True, execution_timeout=timedelta(minutes=3))
dag("sync_shown", workflow="pipeline:shown", retries=1)
dag("sync_killed", retries=1)
dag("sync_failed", on_clear="resume")
dag("sync_success", on_kill="cancel")
dag("sync_timeout", retries=1, execution_timeout=timedelta(hours=1))
dag("sync_over", workflow="pipeline:fails_once", on_clear="restart")
dag("sync_restart", retries=1)

with DAG("mapped", schedule=None):

    @task
    def items() -> list[dict[str, str]]:
        return [{"item": item} for item in Path(WITNESS, "items").read_text().split()]

    RayWorkflowRunOperator.partial(
        task_id="t",
        workflow="pipeline:echo",
        runtime_env={"working_dir": SHIPPED},
        ray_workflow_conn_id="live_other",
        on_clear="resume",
    ).expand(arguments=items())
