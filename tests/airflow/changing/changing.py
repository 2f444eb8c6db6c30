"""A workflow of functions of the DAG file, which a test corrects."""

import os
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

RAN = Path(os.environ.get("WITNESS", ""), "ran")
DAY = 1


def note(name):
    with RAN.open("a") as file:
        file.write(f"{name}\n")


def load(day):
    note("load")
    return [day, day]


def clean(rows):
    note("clean")
    return [row + 10 for row in rows]


def report(rows):
    note("report")
    raise ValueError("a bug")


def split(rows):
    note("split")
    from airflow_provider_rayworkflow import workflow

    return workflow.continuation(named(report).bind(rows))


def named(function):
    import ray

    from airflow_provider_rayworkflow import workflow

    return ray.remote(function).options(**workflow.options(task_id=function.__name__))


def daily(day):
    return named(split).bind(named(clean).bind(named(load).bind(day)))


common = {
    "workflow": daily,
    "arguments": {"day": DAY},
    "workflow_id": "{{ dag_run.conf.get('workflow_id', '') or dag_run.run_id }}",
    "ray_workflow_conn_id": "live",
    "poll_interval_s": 0.2,
}

with DAG("changing", schedule=None):
    plan = RayWorkflowRunOperator(task_id="plan", dry_run=True, on_clear="resume", **common)
    plan >> RayWorkflowRunOperator(task_id="flights", on_clear="resume", **common)
