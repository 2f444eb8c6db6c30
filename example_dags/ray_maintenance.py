"""Every day: resume what a lost cluster interrupted, and delete what ended long ago."""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import (
    RayWorkflowPruneOperator,
    RayWorkflowResumeAllOperator,
)

with DAG(
    "ray_maintenance",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
):
    resume = RayWorkflowResumeAllOperator(task_id="resume", include_failed=False)
    prune = RayWorkflowPruneOperator(task_id="prune", older_than=timedelta(days=30))
    resume >> prune
