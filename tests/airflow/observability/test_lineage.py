"""The Airflow task is the OpenLineage parent of what its workflow does."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dag_test import DAGS, test_dag

from airflow_provider_rayworkflow.observability.lineage import parent_variables, with_variables

ROOT = Path(__file__).parents[3]
PROVIDER = [
    "apache-airflow-providers-openlineage==2.20.3",
    "openlineage-python==1.54.0",
    "openlineage-integration-common==1.54.0",
    "openlineage-sql==1.54.0",
    "httpcore2==2.16.2",
    "httpx2==2.16.2",
    "truststore==0.10.5",
]
VARIABLES = {"OPENLINEAGE_PARENT_ID": "a/b/c"}


@pytest.fixture(scope="module")
def provider(tmp_path_factory) -> Path:
    """Airflow's OpenLineage provider, for one process: installed, it would slow all others down."""
    folder = tmp_path_factory.mktemp("openlineage")
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--no-deps"]
    pins = ["--python", sys.executable, "--constraints", str(ROOT / "constraints.txt")]
    subprocess.run([*uv, *pins, "--target", str(folder), *PROVIDER], check=True, timeout=120)
    return folder


@pytest.mark.airflow
@pytest.mark.timeout(1_050)
def test_tasks_are_told_their_parent_where_openlineage_is_on(airflow_home, provider, tmp_path):
    transport = {"type": "file", "log_file_path": str(tmp_path / "events")}
    outcome = test_dag(
        airflow_home,
        DAGS / "lineage.py",
        {
            "PYTHONPATH": os.pathsep.join([str(provider), os.environ.get("PYTHONPATH", "")]),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "production",
        },
    )
    assert outcome.states["show"] == "success", outcome.log
    told = outcome.xcoms["show", "return_value"]
    assert set(told) == {"OPENLINEAGE_PARENT_ID", "OPENLINEAGE_ROOT_PARENT_ID"}
    namespace, job, run = told["OPENLINEAGE_PARENT_ID"].split("/")
    assert (namespace, job, len(run)) == ("production", "lineage.show", 36)
    namespace, job, run = told["OPENLINEAGE_ROOT_PARENT_ID"].split("/")
    assert (namespace, job, len(run)) == ("production", "lineage", 36)


def test_tasks_are_told_nothing_where_it_is_not_installed():
    assert importlib.util.find_spec("airflow.providers.openlineage") is None
    assert parent_variables(None) == {}


def test_variables_come_beside_those_of_the_author():
    assert with_variables(None, VARIABLES) == {"env_vars": VARIABLES}
    assert with_variables({"pip": ["x"], "env_vars": {"A": "1"}}, VARIABLES) == {
        "pip": ["x"],
        "env_vars": {"A": "1", "OPENLINEAGE_PARENT_ID": "a/b/c"},
    }


def test_settings_of_the_author_count_more():
    own = {"env_vars": {"OPENLINEAGE_PARENT_ID": "mine"}}
    assert with_variables(own, VARIABLES) == own


def test_without_openlineage_the_environment_stays_as_it_is():
    assert with_variables(None, {}) is None
