"""Airflow's environment: set before anything imports Airflow."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dag_test import DAGS
from stats_server import StatsServer, stats_server

HOME = tempfile.TemporaryDirectory(prefix="rayworkflow-airflow-")

for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": HOME.name,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "no_proxy": "localhost,127.0.0.1",
}


@pytest.fixture(scope="module")
def stats() -> Iterator[StatsServer]:
    with stats_server() as server:
        yield server


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow home whose database has its tables, which are made once for all worker processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    database = shared / "airflow.db"
    with (shared / "airflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                check=True,
                timeout=600,
                stdout=subprocess.DEVNULL,
            )
            shutil.copy(Path(HOME.name, "airflow.db"), database)
    shutil.copy(database, HOME.name)
    return Path(HOME.name)
