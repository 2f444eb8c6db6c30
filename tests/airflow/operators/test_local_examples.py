"""Example DAGs without a cluster: on a local Ray that a task starts, also deferred and without waiting."""

import shutil
from pathlib import Path

import pytest
from dag_test import Outcome, connection, test_dag

EXAMPLES = Path(__file__).parents[3] / "example_dags"

pytestmark = [pytest.mark.airflow, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1_050)]


@pytest.fixture
def run(airflow_home: Path, tmp_path: Path):
    """Runs an example in a home of its own."""

    def run(name: str) -> Outcome:
        shutil.copy(airflow_home / "airflow.db", tmp_path)
        environment = {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": connection(storage=str(tmp_path / "workflows")),
        }
        return test_dag(tmp_path, EXAMPLES / f"{name}.py", environment)

    return run


def test_the_readmes_dag_gives_what_the_readme_says(run):
    outcome = run("ray_squares")
    assert outcome.xcoms["squares", "return_value"] == 285, outcome.log
    assert outcome.xcoms["squares", "_link_RayDashboardLink"] == ""


def test_a_deferrable_task_waits_in_the_triggerer(run):
    """Its code comes with its ``runtime_env``, as on a cluster."""
    outcome = run("ray_deferrable")
    assert outcome.xcoms["common_words", "return_value"] == {"fish": 2, "one": 1, "two": 1}
    assert "waiting in the triggerer" in outcome.log


def test_a_task_that_does_not_wait_leaves_its_workflow_to_sensors(run):
    outcome = run("ray_sensor")
    assert set(outcome.states.values()) == {"success"}, outcome.log
    assert outcome.xcoms["started", "return_value"] == f"words-{outcome.run_id}"
    assert outcome.xcoms["finished", "return_value"] == "SUCCESSFUL"


def test_mapped_task_instances_share_the_local_ray(run):
    outcome = run("ray_mapped")
    assert outcome.xcoms["regions_of", "return_value"] == ["north", "south"], outcome.log
    assert outcome.log.count("The local Ray starts; its log is") == 1
