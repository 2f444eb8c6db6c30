"""A pipeline of 100 steps as one Airflow task: against 100 of them, and against one that runs DBOS.

Each under Airflow's scheduler with the LocalExecutor. What starts Ray and DBOS is included.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import peers
from benchmarks.rows import Row, by_time

_TESTS = Path(__file__).parent.parent.parent / "tests"
sys.path += [str(_TESTS / "airflow"), str(_TESTS)]

_DAGS = """
import json
import subprocess

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


@task
def steps_of_dbos(length):
    asked = json.dumps(["pipeline", length])
    subprocess.run({dbos!r}, env={environment!r}, input=asked, text=True, check=True)


with DAG("airflow_tasks", schedule=None):
    value = 0
    for _ in range({length}):
        value = add_one(value)

with DAG("one_operator", schedule=None):
    RayWorkflowRunOperator(task_id="steps", workflow=steps, arguments={{"length": {length}}})

with DAG("one_task_of_dbos", schedule=None):
    steps_of_dbos({length})
"""


#: What the one operator is compared with, by the DAG: its name, and the goal.
_PEERS = {
    "airflow_tasks": ("{} Airflow tasks, LocalExecutor (1 run)", "≥ 20"),
    "one_task_of_dbos": ("one Airflow task that runs DBOS Transact with SQLite", "≥ 2"),
}


def measure(quick: bool) -> list[Row]:
    # 100 Airflow tasks take two minutes: there is time for one run, which is the mean of 100.
    length = 2 if quick else 100
    turns = ["one_operator", "one_task_of_dbos"] * 3
    turns.insert(3, "airflow_tasks")
    with tempfile.TemporaryDirectory() as folder:
        dags, home = Path(folder, "dags"), Path(folder, "home")
        dags.mkdir()
        home.mkdir()
        dbos = [] if quick else peers.command("dbos_transact")
        content = _DAGS.format(length=length, dbos=dbos, environment=peers.environment())
        (dags / "pipelines.py").write_text(content)
        seconds = _seconds(dags, home, ["one_operator", "airflow_tasks"] if quick else turns)
    work = f"a pipeline of {length} steps as one RayWorkflowRunOperator, Ray's start included"
    ours = seconds.pop("one_operator")
    return [
        by_time(
            work,
            _PEERS[dag_id][0].format(length),
            ours=ours,
            theirs=theirs,
            goal=_PEERS[dag_id][1],
        )
        for dag_id, theirs in seconds.items()
    ]


def _seconds(dags: Path, home: Path, turns: Sequence[str]) -> dict[str, float]:
    """The median of each DAG's runs, one after the other in this order."""
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
        seconds: dict[str, list[float]] = {dag_id: [] for dag_id in turns}
        for dag_id in seconds:
            airflow.unpause(dag_id)
        for number, dag_id in enumerate(turns):
            airflow.trigger(dag_id, f"bench-{number}")
            airflow.wait_for_run(dag_id, f"bench-{number}")
            seconds[dag_id].append(airflow.run_seconds(dag_id, f"bench-{number}"))
        return {dag_id: statistics.median(measured) for dag_id, measured in seconds.items()}
    finally:
        airflow.stop()
