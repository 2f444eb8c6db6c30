"""Tasks that need no Ray: stored outputs, canceled workflows, and what can't be run."""

from pathlib import Path

import pytest
from dag_test import DAGS, Outcome, connection, test_dag
from sample_records import status_record
from stats_server import StatsServer

from airflow_provider_rayworkflow.workflow.model.records import JsonOutput
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1_050)]

STORED = {
    "taken": (WorkflowStatus.SUCCESSFUL, JsonOutput(value={"n": 5})),
    "not_json": (WorkflowStatus.SUCCESSFUL, JsonOutput(problem="the output is a secret")),
    "canceled": (WorkflowStatus.CANCELED, None),
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("storage")
    store = WorkflowStore(open_store(str(root)))
    for workflow_id, (status, output) in STORED.items():
        record = status_record(status, workflow_id, number=1, output=output)
        store.write_status(record)
    return root


@pytest.fixture(scope="module")
def outcome(airflow_home: Path, storage: Path, stats: StatsServer) -> Outcome:
    return test_dag(
        airflow_home,
        DAGS / "quick.py",
        {
            **stats.environment,
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": connection(storage=str(storage)),
            "AIRFLOW_CONN_UNWRITABLE": connection(storage="/proc/nothing/here"),
            "AIRFLOW_CONN_REMOTE": '{"conn_type": "ray_workflow", "host": "http://ray:8265"}',
        },
    )


@pytest.mark.parametrize("task_id", ["taken", "resume_taken"])
def test_a_stored_output_is_returned_without_running_anything(outcome: Outcome, task_id: str):
    assert outcome.states[task_id] == "success"
    assert outcome.xcoms[task_id, "return_value"] == {"n": 5}


def test_the_id_the_connection_and_the_link_are_in_xcom(outcome: Outcome):
    assert outcome.xcoms["taken", "workflow_id"] == "taken"
    assert outcome.xcoms["taken", "ray_workflow_conn_id"] == "ray_workflow_default"
    assert outcome.xcoms["taken", "_link_RayWorkflowLink"] == (
        "/rayworkflow/workflow?conn_id=ray_workflow_default&workflow_id=taken"
    )
    assert outcome.xcoms["taken", "_link_RayDashboardLink"] == ""


def test_a_stored_output_that_is_not_json_is_no_failure(outcome: Outcome):
    assert outcome.states["not_json"] == "success"
    assert ("not_json", "return_value") not in outcome.xcoms
    assert "not in XCom: the output is a secret" in outcome.log


def test_a_workflow_that_does_not_exist_is_not_resumed(outcome: Outcome, storage: Path):
    assert (outcome.states["resume_missing"], outcome.tries["resume_missing"]) == ("failed", 3)
    assert f"There is no workflow 'missing' in {storage}" in outcome.log


@pytest.mark.parametrize("task_id", ["canceled", "resume_canceled"])
def test_a_canceled_workflow_fails_without_retry_and_says_what_to_do(
    outcome: Outcome, task_id: str
):
    assert (outcome.states[task_id], outcome.tries[task_id]) == ("failed", 1)
    assert "Workflow 'canceled' was canceled, which is final. To run it again" in outcome.log


@pytest.mark.parametrize(
    ("task_id", "message"),
    [
        ("bad_id", "The workflow id '../x' contains a relative path"),
        ("bad_arguments", "arguments['x'] must be JSON, and it is a date"),
        ("bad_metadata", "metadata may not have the key 'airflow'"),
        ("no_module", "The workflow 'no_such_module:f' can't be imported: there is no"),
        ("no_graph", "The workflow 'no_graph' returned no graph"),
    ],
)
def test_an_authors_mistake_is_not_retried(outcome: Outcome, task_id: str, message: str):
    assert (outcome.states[task_id], outcome.tries[task_id]) == ("failed", 1)
    assert f"RayWorkflowInputError: {message}" in outcome.log


@pytest.mark.parametrize(
    ("task_id", "message"),
    [
        ("bad_host", "RayWorkflowConnectionError: The connection 'remote' has a host and no"),
        ("bad_storage", "RayWorkflowStorageError: The workflow storage"),
    ],
)
def test_an_error_that_a_person_may_repair_meanwhile_is_retried(
    outcome: Outcome, task_id: str, message: str
):
    assert (outcome.states[task_id], outcome.tries[task_id]) == ("failed", 3)
    assert outcome.log.count(message) == 3


def test_nothing_was_written_and_ray_was_not_started(outcome: Outcome, storage: Path):
    written = {path.name for path in storage.glob("v1/*/*") if path.parent.name != "changes"}
    assert written == set(STORED)
    # Those of the statuses that the test has stored; no try adds one.
    assert len(list(storage.glob("v1/changes/*"))) == len(STORED)
    assert "local Ray" not in outcome.log


def test_airflows_metrics_say_what_tries_did(outcome: Outcome, stats: StatsServer):
    # What was stored before is taken: nothing ended under these tries.
    assert stats.take("airflow.ray_workflow.") == {"airflow.ray_workflow.try.take": 5}
