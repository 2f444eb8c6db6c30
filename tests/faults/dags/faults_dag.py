"""One task that runs the planned workflow. As a program: runs the DAG to its end."""

import json
import os
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

PLAN = json.loads(os.environ.get("FAULTS_PLAN", '{"workflow_id": "none"}'))

with DAG("faults_dag", schedule=None):
    RayWorkflowRunOperator(
        task_id="run",
        workflow="shapes:from_airflow",
        arguments={"ledger": os.environ.get("FAULTS_LEDGER", ""), "plan": PLAN},
        workflow_id=PLAN["workflow_id"],
        on_failure=PLAN.get("on_failure", "stop"),
        poll_interval_s=0.2,
    )


if __name__ == "__main__":
    from airflow.dag_processing.dagbag import DagBag

    run = DagBag(dag_folder=str(Path(__file__))).dags["faults_dag"].test()
    raise SystemExit(0 if run.state == "success" else 1)
