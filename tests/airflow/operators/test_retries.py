"""A DAG through Airflow itself: a retry resumes, and committed tasks ran exactly once."""

import re
from collections import Counter
from pathlib import Path

import pytest
from dag_test import DAGS, Outcome, connection, test_dag
from stats_server import StatsServer

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store

pytestmark = [pytest.mark.airflow, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1_050)]


@pytest.fixture(scope="module")
def witness(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("witness")


@pytest.fixture(scope="module")
def store(witness: Path) -> WorkflowStore:
    return WorkflowStore(open_store(str(witness / "storage")))


@pytest.fixture(scope="module")
def outcome(airflow_home: Path, witness: Path, stats: StatsServer) -> Outcome:
    return test_dag(
        airflow_home,
        DAGS / "retries.py",
        {
            **stats.environment,
            "WITNESS": str(witness),
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": connection(storage=str(witness / "storage")),
        },
    )


def test_the_retry_of_a_failed_workflow_is_successful(outcome: Outcome):
    assert outcome.states["by_path"] == "success"
    assert outcome.tries["by_path"] == 2


def test_committed_tasks_ran_exactly_once_over_both_tries(outcome: Outcome, witness: Path):
    ran = Counter((witness / "by_path" / "ran").read_text().split())
    assert ran == {"a": 1, "b": 1, "c": 2, "d": 1}


def test_the_storage_says_what_the_retry_reused(outcome: Outcome, store: WorkflowStore):
    record = store.read_status(f"retries.by_path.{outcome.run_id}")
    assert record.status is WorkflowStatus.SUCCESSFUL
    assert (record.tasks_total, record.tasks_done, record.tasks_reused) == (4, 4, 2)
    assert record.user_metadata["owner"] == "retries"


def test_the_log_names_the_failing_task_with_its_own_traceback(outcome: Outcome):
    assert "counted.step" in outcome.log
    assert 'raise RuntimeError(f"{name} fails once")' in outcome.log
    assert "RayWorkflowFailedError: Task 'counted.step" in outcome.log
    assert "RuntimeError: c fails once" in outcome.log


def test_the_workflows_output_and_id_are_in_xcom(outcome: Outcome):
    output = ["d", ["c", ["a"], ["b"]]]
    assert outcome.xcoms["by_path", "return_value"] == output
    assert outcome.xcoms["by_path", "workflow_id"] == f"retries.by_path.{outcome.run_id}"
    assert outcome.xcoms["collect", "return_value"][0] == output


def test_the_execution_timeout_suspends_and_the_retry_resumes(outcome: Outcome, witness: Path):
    """Also with ``on_kill="cancel"``."""
    assert outcome.states["in_time"] == "success"
    assert outcome.tries["in_time"] == 2
    assert "The execution_timeout of 1:00:00 is over" in outcome.log
    ran = Counter((witness / "in_time" / "ran").read_text().split())
    assert ran == {"a": 1, "time_out": 2, "z": 1}


def test_a_local_ray_that_dies_is_replaced_in_the_same_try(outcome: Outcome, witness: Path):
    assert outcome.states["without_ray"] == "success"
    assert outcome.tries["without_ray"] == 1
    workflow_id = f"retries.without_ray.{outcome.run_id}"
    assert f"Workflow {workflow_id} has lost its owner: resuming it" in outcome.log
    ran = Counter((witness / "without_ray" / "ran").read_text().split())
    assert ran == {"a": 1, "lose_ray": 2, "z": 1}


def test_one_local_ray_serves_all_tasks(outcome: Outcome):
    """Until it dies: it is started once, and once more by the task that has lost it."""
    assert outcome.log.count("The local Ray starts; its log is") == 2
    assert outcome.log.count("The local Ray runs already, and has") == 0, "all ask for its size"


def test_mapped_task_instances_of_the_decorator_have_a_workflow_each(outcome: Outcome):
    assert outcome.states["mapped.0"] == outcome.states["mapped.1"] == "success"
    output = outcome.xcoms["mapped.0", "return_value"]
    assert output["retries"] == 21
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", output["ds"])
    ids = [outcome.xcoms[f"mapped.{index}", "workflow_id"] for index in (0, 1)]
    assert ids == [f"retries.mapped.{outcome.run_id}.{index}" for index in (0, 1)]


def test_an_output_that_is_not_json_is_no_failure_and_the_log_says_why(outcome: Outcome):
    assert ("mapped.1", "return_value") not in outcome.xcoms
    assert "was successful, and its output is not in XCom: the output of type set" in outcome.log


def test_airflows_metrics_say_what_tries_did_and_how_workflows_ended(
    outcome: Outcome, stats: StatsServer
):
    assert stats.take("airflow.ray_workflow.") == {
        "airflow.ray_workflow.try.run": 5,
        "airflow.ray_workflow.try.resume": 2,
        "airflow.ray_workflow.end.failed": 1,
        "airflow.ray_workflow.duration.failed": 1,
        "airflow.ray_workflow.end.successful": 5,
        "airflow.ray_workflow.duration.successful": 5,
    }
