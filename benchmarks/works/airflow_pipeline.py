"""A pipeline of 100 steps as one Airflow task, Ray started in it, against 100 Airflow tasks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, by_time

sys.path.append(str(Path(__file__).parent.parent.parent / "tests" / "airflow"))

#: So many Airflow tasks are run; a chain takes its time for each of them alike.
SAMPLE = 20

_DAGS = """
from airflow.sdk import DAG, task
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator


@task
def add_one(value):
    return value + 1


def steps(length):
    import ray

    @ray.remote
    def add_one(value):
        return value + 1

    node = add_one.bind(0)
    for _ in range(length - 1):
        node = add_one.bind(node)
    return node


with DAG("airflow_tasks", schedule=None):
    value = 0
    for _ in range({sample}):
        value = add_one(value)

with DAG("one_operator", schedule=None):
    RayWorkflowRunOperator(task_id="steps", workflow=steps, arguments={{"length": {length}}})
"""


def measure(quick: bool) -> list[Row]:
    sample, length = (2, 10) if quick else (SAMPLE, 100)
    with tempfile.TemporaryDirectory() as folder:
        dags, home = Path(folder, "dags"), Path(folder, "home")
        dags.mkdir()
        home.mkdir()
        (dags / "pipelines.py").write_text(_DAGS.format(sample=sample, length=length))
        ours, theirs = _seconds(dags, home)
    scaled = theirs / sample * length
    return [
        by_time(
            f"a pipeline of {length} steps as one RayWorkflowRunOperator, Ray's start included",
            f"{length} Airflow tasks, LocalExecutor (by the time of {sample})",
            ours=ours,
            theirs=scaled,
            goal="≥ 20",
        )
    ]


def _seconds(dags: Path, home: Path) -> tuple[float, float]:
    from live_airflow import LiveAirflow

    settings = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "RAY_WORKFLOW_STORAGE": str(home / "workflows"),
    }
    database = home / "new.db"
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=os.environ
        | settings
        | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        },
        stdout=subprocess.DEVNULL,
        check=True,
    )
    airflow = LiveAirflow(home, settings)
    airflow.start(database)
    try:
        for dag_id in ("airflow_tasks", "one_operator"):
            airflow.unpause(dag_id)
        return _run(airflow, "one_operator"), _run(airflow, "airflow_tasks")
    finally:
        airflow.stop()


def _run(airflow: object, dag_id: str) -> float:
    begun_at = time.perf_counter()
    airflow.trigger(dag_id, "bench")  # type: ignore[attr-defined]
    airflow.wait_for_run(dag_id, "bench")  # type: ignore[attr-defined]
    return time.perf_counter() - begun_at
