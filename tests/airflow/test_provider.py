"""Airflow finds the provider, and does not pay for Ray where no workflow runs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest

import airflow_provider_rayworkflow
from airflow_provider_rayworkflow.connection.settings import EXTRAS
from airflow_provider_rayworkflow.get_provider_info import get_provider_info
from airflow_provider_rayworkflow.hooks import RayWorkflowHook

pytestmark = pytest.mark.timeout(1_200)


def ask_airflow(what: str) -> Any:
    script = Path(__file__).parent / "in_airflow.py"
    answer = subprocess.run(
        [sys.executable, str(script), what],
        check=True,
        timeout=600,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.invariant(7)
def test_importing_the_airflow_side_and_parsing_dags_loads_neither_ray_nor_pyarrow():
    loaded = ask_airflow("imports")
    assert "airflow_provider_rayworkflow.operators" in loaded["modules"]
    assert loaded["import_errors"] == {}
    assert loaded["dags"] == [
        "flights_daily",
        "ray_deferrable",
        "ray_finished",
        "ray_maintenance",
        "ray_mapped",
        "ray_on_cluster",
        "ray_retry_policy",
        "ray_sensor",
        "ray_squares",
        "ray_taskflow",
    ]
    assert loaded["heavy"] == []


def test_parsing_a_dag_file_loads_nothing_that_only_a_run_needs():
    loaded = ask_airflow("parsed")
    assert "airflow_provider_rayworkflow.operators.run" in loaded
    assert "airflow_provider_rayworkflow.sensors" in loaded
    only_for_runs = [
        "clusters.engine",
        "clusters.hosts",
        "clusters.local_ray",
        "clusters.remote",
        "connection.jobs_api",
        "connection.settings",
        "hooks",
        "operators.cancel",
        "operators.resume_all",
        "tries.kill",
        "tries.workflow_log",
        "tries.workflow_try",
        "triggers",
        "workflow.api",
        "workflow.local_ray",
        "workflow.model.graph",
        "workflow.offline.plan",
        "workflow.storage",
    ]
    names = [f"airflow_provider_rayworkflow.{name}" for name in only_for_runs]
    assert [name for name in names if importlib.util.find_spec(name) is None] == [], "they are gone"
    assert [name for name in names if name in loaded] == []


@pytest.mark.airflow
@pytest.mark.parametrize(
    ("command", "listed"),
    [
        ("list", ["airflow-provider-rayworkflow", "Durable Ray workflows"]),
        ("hooks", ["ray_workflow", "airflow_provider_rayworkflow.hooks.RayWorkflowHook"]),
        (
            "links",
            [
                "airflow_provider_rayworkflow.links.RayWorkflowLink",
                "airflow_provider_rayworkflow.links.RayDashboardLink",
            ],
        ),
        ("triggers", ["airflow_provider_rayworkflow.triggers"]),
        ("behaviours", ["ray_workflow"]),
        ("widgets", ["extra__ray_workflow__storage", "extra__ray_workflow__headers"]),
    ],
)
def test_airflows_commands_list_what_there_is(airflow_home: Path, command: str, listed: list[str]):
    answer = subprocess.run(
        [sys.executable, "-m", "airflow", "providers", command, "--output", "json"],
        check=True,
        timeout=600,
        stdout=subprocess.PIPE,
        text=True,
    )
    missing = [text for text in listed if text not in answer.stdout]
    assert missing == [], answer.stdout


@pytest.mark.airflow
def test_airflow_finds_the_provider_its_hook_and_its_form(airflow_home: Path):
    found = ask_airflow("provider")
    assert found["version"] == airflow_provider_rayworkflow.__version__
    assert found["name"] == "Ray Workflow"
    assert found["hook"] == [
        "airflow_provider_rayworkflow.hooks.RayWorkflowHook",
        "ray_workflow_conn_id",
        "Ray Workflow",
    ]
    (form,) = found["forms"]
    assert set(form["extra_fields"]) == set(EXTRAS)
    fields = form["standard_fields"].items()
    hidden = [name for name, field in fields if field and field["hidden"]]
    assert sorted(hidden) == ["login", "url_schema"]


def test_the_provider_info_is_as_airflow_wants_it():
    schema = Path(airflow.__file__).parent / "provider_info.schema.json"
    jsonschema.validate(get_provider_info(), json.loads(schema.read_text()))


def test_the_provider_info_imports_nothing():
    code = (
        "import sys; before = set(sys.modules)\n"
        "from airflow_provider_rayworkflow.get_provider_info import get_provider_info\n"
        "get_provider_info(); print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.PIPE, text=True
    )
    assert loaded.stdout.split() == [
        "airflow_provider_rayworkflow",
        "airflow_provider_rayworkflow.get_provider_info",
    ]


def test_everything_that_the_provider_info_names_exists():
    info = get_provider_info()
    for kind in ("operators", "hooks", "sensors", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)
    named = [entry["class-name"] for entry in info["task-decorators"]]
    for path in (*named, *info["extra-links"]):
        assert callable(_named(path))
    (connection_type,) = info["connection-types"]
    assert _named(connection_type["hook-class-name"]) is RayWorkflowHook
    assert connection_type["connection-type"] == RayWorkflowHook.conn_type
    assert connection_type["hook-name"] == RayWorkflowHook.hook_name


def _named(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_forms_fields_are_the_settings_of_a_connection():
    (connection_type,) = get_provider_info()["connection-types"]
    assert list(connection_type["conn-fields"]) == list(EXTRAS)
