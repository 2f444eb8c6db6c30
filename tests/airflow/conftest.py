"""Airflow's environment: set before anything imports Airflow."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from dag_test import DAGS

HOME = tempfile.TemporaryDirectory(prefix="rayworkflow-airflow-")

for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": HOME.name,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "no_proxy": "localhost,127.0.0.1",
}


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """An Airflow home whose database has its tables."""
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        check=True,
        timeout=180,
        stdout=subprocess.DEVNULL,
    )
    return Path(HOME.name)
