"""Thirty workflows that are waited for in the triggerer, by operators and by sensors."""

import os
import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_rayworkflow.operators import RayWorkflowResumeOperator
from airflow_provider_rayworkflow.sensors import RayWorkflowSensor

WITNESS = os.environ.get("WITNESS", "")


def begin(context: object) -> None:
    """The workflow may end a while after this; the end of this process is noticed late."""
    Path(WITNESS, context["ti"].task_id).touch()
    os._exit = end


def end(code: int, *, _exit: object = os._exit) -> None:
    """End as on a busy machine: a moment after the sockets, so that the supervisor looks 5 s later."""
    os.closerange(0, 256)
    time.sleep(0.3)
    _exit(code)


with DAG("deferred", schedule=None, default_args={"retry_delay": timedelta(0)}):
    for number in range(30):
        given = {
            "task_id": f"w{number}",
            "workflow_id": f"w{number}",
            "ray_workflow_conn_id": "deferred",
            "deferrable": True,
            "pre_execute": begin,
        }
        if number % 2:
            RayWorkflowSensor(**given, poke_interval=1)
        else:
            RayWorkflowResumeOperator(**given)
