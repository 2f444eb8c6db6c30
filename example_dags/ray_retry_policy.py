"""Retries that know what failed: bad input is not tried again, an outage is, after a while.

A workflow that ran out of memory more often than its task may, would again.
"""

from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.retry_policy import RayWorkflowRetryPolicy


@workflow.task(max_retries=0)
def first(line: str) -> str:
    if not line:
        raise ValueError("the line is empty")
    return line.split()[0]


with DAG("ray_retry_policy", schedule=None, params={"line": "One fish"}):

    @task.ray_workflow(
        retries=5,
        retry_delay=timedelta(minutes=1),
        retry_policy=RayWorkflowRetryPolicy(
            fail_on=["ValueError"],
            fail_on_causes=["out_of_memory"],
            outage_delay=timedelta(minutes=5),
        ),
    )
    def first_word(line: str):
        return first(line)

    first_word("{{ params.line }}")
