"""Workflows of functions of the DAG file, which a test corrects: one DAG for each policy."""

import os
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

WITNESS = os.environ.get("WITNESS", "")
DAY = 1
OFFSET = 100


def note(name):
    from airflow_provider_rayworkflow import workflow

    ran = Path(WITNESS, workflow.get_context().workflow_id)
    with ran.open("a") as file:
        file.write(f"{name}\n")


def load(day):
    note("load")
    return [day, day]


def clean(rows):
    note("clean")
    return [row + 10 for row in rows]


def constant():
    note("constant")
    return 1000


def shifted(offset):
    def shift(value):
        note("shift")
        return value + offset

    return shift


def split(value):
    note("split")
    from airflow_provider_rayworkflow import workflow

    first = task("first", part).bind(value, 1)
    return workflow.continuation(task("second", part).bind(first, 2))


def part(value, added):
    note(f"part {added}")
    return value + added


def extra(value):
    note(f"extra {value}")
    return value


def report(rows, *others):
    note("report")
    raise ValueError("a bug")


def task(name, function):
    import ray

    from airflow_provider_rayworkflow import workflow

    return ray.remote(function).options(**workflow.options(task_id=name))


def daily(day):
    return task("report", report).bind(
        task("clean", clean).bind(task("load", load).bind(day)),
        task("constant", constant).bind(),
        task("shift", shifted(OFFSET)).bind(0),
        task("lambda", lambda value: (note("lambda"), value * 2)[1]).bind(5),
        task("split", split).bind(0),
        task("renamed", extra).bind(1),
        task("removed", extra).bind(2),
    )


def flights(policy):
    return RayWorkflowRunOperator(
        task_id="flights",
        workflow=daily,
        arguments={"day": DAY},
        workflow_id=policy,
        ray_workflow_conn_id="live",
        poll_interval_s=0.2,
        on_change=policy,
        on_clear="resume",
    )


with DAG("reuse", schedule=None):
    plan = RayWorkflowRunOperator(
        task_id="plan",
        workflow=daily,
        arguments={"day": DAY},
        workflow_id="reuse",
        ray_workflow_conn_id="live",
        dry_run=True,
        on_clear="resume",
    )
    plan >> flights("reuse")

with DAG("rerun_changed", schedule=None):
    flights("rerun_changed")

with DAG("refuse", schedule=None):
    flights("refuse")
