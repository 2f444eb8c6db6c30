"""One task for each ``on_clear`` and way to wait; its workflow waits until the test opens a gate."""

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

WITNESS = os.environ.get("WITNESS", "")


def dag(name: str, **arguments: object) -> None:
    with DAG(f"live_{name}", schedule=None):
        RayWorkflowRunOperator(
            task_id="gated",
            workflow="counted:gated",
            arguments={"folder": f"{WITNESS}/{name}"},
            ray_workflow_conn_id="live",
            poll_interval_s=0.2,
            retries=1,
            retry_delay=timedelta(0),
            **arguments,
        )


for on_clear in ("auto", "resume", "restart"):
    dag(on_clear, on_clear=on_clear)
dag("deferred", deferrable=True)
dag("without_wait", wait=False)
for name in ("lost_1", "lost_2"):
    dag(name)
dag("lost_deferred", deferrable=True)
