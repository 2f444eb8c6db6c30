"""Workflows that programs have left failed or interrupted, resumed by Airflow on the local Ray."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from dag_test import DAGS, Outcome, connection, test_dag
from live_airflow import wait_for

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
from airflow_provider_rayworkflow.workflow.testing import in_process

pytestmark = [pytest.mark.airflow, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1_050)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("resumes")


@pytest.fixture(scope="module")
def left(folder: Path) -> Iterator[Path]:
    """A storage with a failed and a suspended workflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DAGS)
        import counted

        with in_process(str(folder / "storage")) as workflows:
            with pytest.raises(WorkflowExecutionError):
                workflows.run(counted.failing(str(folder / "failed")), workflow_id="failed")
            workflows.run_async(counted.gated(str(folder / "stopped")), workflow_id="stopped")
            wait_for("the gate", lambda: ran(folder / "stopped")["gate"])
        (folder / "stopped" / "open").touch()
        yield folder / "storage"


@pytest.fixture(scope="module")
def outcome(airflow_home: Path, left: Path) -> Outcome:
    connected = {
        "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": connection(storage=str(left)),
        # Their stored graphs name no environment: the local Ray itself must find what they import.
        "PYTHONPATH": os.pathsep.join([str(DAGS), os.environ.get("PYTHONPATH", "")]),
    }
    conf = {"from_task": {"failed": "counted.step"}}
    return test_dag(airflow_home, DAGS / "resumes.py", connected, **conf)


def ran(folder: Path) -> Counter[str]:
    path = folder / "ran"
    return Counter(path.read_text().split()) if path.exists() else Counter()


def test_a_failed_workflow_is_resumed_from_what_is_stored_and_from_the_task_of_the_conf(
    outcome: Outcome, folder: Path
):
    assert outcome.states["failed"] == "success", outcome.log
    assert outcome.xcoms["failed", "return_value"] == ["d", ["c", ["a"], ["b"]]]
    assert ran(folder / "failed") == {"a": 2, "b": 1, "c": 2, "d": 1}
    assert "this try will resume: it is restarted from its task counted.step" in outcome.log


def test_all_that_was_interrupted_is_resumed(outcome: Outcome, folder: Path, left: Path):
    assert outcome.xcoms["stopped", "return_value"] == ["stopped"], outcome.log
    assert outcome.xcoms["ended", "return_value"] == ["z", ["gate", ["a"]]]
    assert ran(folder / "stopped") == {"a": 1, "gate": 2, "z": 1}
    record = WorkflowStore(open_store(str(left))).read_status("stopped")
    assert record.output.value == ["z", ["gate", ["a"]]]
