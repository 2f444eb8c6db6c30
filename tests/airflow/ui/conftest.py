"""One API server and one browser for all pages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dag_test import connection
from live_airflow import LiveAirflow
from server import USERS
from stored import FAILED, RUNNING, SUCCESSFUL, Stored

from airflow_provider_rayworkflow.links import RayWorkflowLink

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    stored = Stored(tmp_path_factory.mktemp("ui") / "storage")
    stored.fill()
    return stored


@pytest.fixture(scope="module")
def airflow(
    airflow_home: Path, stored: Stored, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveAirflow]:
    """Airflow's API server with the pages, and a DAG run for each workflow of a task instance."""
    home = tmp_path_factory.mktemp("airflow")
    passwords = home / "simple_auth_manager_passwords.json.generated"
    passwords.write_text(json.dumps({name: name for name in USERS}))
    airflow = LiveAirflow(
        home,
        {
            "AIRFLOW__CORE__AUTH_MANAGER": "dag_rights.DagRights",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
                f"{name}:{role}" for name, role in USERS.items()
            ),
            "AIRFLOW_CONN_RAY": connection(storage=str(stored.path)),
            "AIRFLOW_CONN_OTHER": json.dumps({"conn_type": "http", "extra": {"secret": "x"}}),
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        },
        has_scheduler=False,
        user=("admin", "admin"),
    )
    with airflow.started(airflow_home / "airflow.db"):
        for workflow_id in (FAILED, SUCCESSFUL, RUNNING):
            dag_id, task_id, run_id = workflow_id.split(".")
            airflow.trigger(dag_id, run_id)
            url = RayWorkflowLink.url("ray", workflow_id)
            airflow.push_xcom(dag_id, run_id, task_id, RayWorkflowLink().xcom_key, url)
        airflow.trigger("ui_plain", "r")
        airflow.add_connection("in_database", "ray_workflow", {"storage": str(stored.path)})
        yield airflow
