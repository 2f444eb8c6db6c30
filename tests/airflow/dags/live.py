"""One task for each ``on_clear``; its workflow waits until the test opens a gate."""

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

WITNESS = os.environ.get("WITNESS", "")

for on_clear in ("auto", "resume", "restart"):
    with DAG(f"live_{on_clear}", schedule=None):
        RayWorkflowRunOperator(
            task_id="gated",
            workflow="counted:gated",
            arguments={"folder": f"{WITNESS}/{on_clear}"},
            ray_workflow_conn_id="live",
            on_clear=on_clear,
            poll_interval_s=0.2,
            retries=1,
            retry_delay=timedelta(0),
        )
