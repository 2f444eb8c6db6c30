"""Operators that act on workflows through the storage alone."""

import os
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from dag_test import connection
from sample_records import lease, status_record, store_run
from waiting import wait_until

from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowInputError,
    RayWorkflowNotFoundError,
    RayWorkflowStillActiveError,
)
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.operators import (
    RayWorkflowCancelOperator,
    RayWorkflowDeleteOperator,
    RayWorkflowPruneOperator,
    RayWorkflowResumeAllOperator,
)
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus

GRAPH = Graph(tasks=[Task(name="f", function=0, arguments=0)], blobs=[b""])
HOUR = 3600.0


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayWorkflowHook:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", connection(storage=str(tmp_path)))
    return RayWorkflowHook()


def put(
    hook: RayWorkflowHook, workflow_id: str, status: str, *, manager_id: str = "m", hours: float = 0
) -> StatusRecord:
    moment = time.time() - hours * HOUR
    record = status_record(
        WorkflowStatus(status),
        workflow_id,
        manager_id=manager_id,
        created_at=moment,
        ended_at=moment,
    )
    return store_run(hook.store, record, GRAPH)


def live(hook: RayWorkflowHook, manager_id: str) -> None:
    hook.store.leases.write(lease(manager_id))


def status(hook: RayWorkflowHook, workflow_id: str) -> str:
    found = hook.find(workflow_id)
    return found.status.value if found else "NONE"


def cancel(**arguments: object) -> list[str]:
    operator = RayWorkflowCancelOperator(task_id="t", poll_interval_s=0.01, **arguments)
    return operator.execute({})


def delete(**arguments: object) -> list[str]:
    return RayWorkflowDeleteOperator(task_id="t", **arguments).execute({})


def test_workflows_of_dead_managers_are_canceled_without_one(hook):
    put(hook, "a", "RUNNING")
    put(hook, "b", "FAILED")
    put(hook, "c", "CANCELED")
    assert cancel(workflow_id=["a", "b", "c"]) == ["a", "b", "c"]
    assert [status(hook, name) for name in "abc"] == ["CANCELED"] * 3


def test_workflows_are_canceled_by_status_and_prefix(hook):
    put(hook, "dag.a", "FAILED")
    put(hook, "dag.b", "SUCCESSFUL")
    put(hook, "other", "FAILED")
    assert cancel(statuses=["FAILED", "RESUMABLE"], id_prefix="dag.") == ["dag.a"]
    assert status(hook, "other") == "FAILED"


def test_a_cancel_waits_for_the_manager_that_runs_it(hook):
    record = put(hook, "a", "RUNNING")
    live(hook, "m")

    def obey() -> None:
        wait_until(lambda: list(hook.mailbox.list_requests("a")))
        canceled = replace(record, status=WorkflowStatus.CANCELED, number=1)
        hook.store.write_status(canceled, replaces=record)

    manager = threading.Thread(target=obey)
    manager.start()
    assert cancel(workflow_id="a") == ["a"]
    manager.join()


def test_a_cancel_that_is_not_obeyed_in_time_fails_and_stays_asked_for(hook):
    put(hook, "a", "RUNNING")
    live(hook, "m")
    with pytest.raises(RayWorkflowStillActiveError, match="'a' should be canceled, and its manag"):
        cancel(workflow_id="a", timeout_s=0.05)
    assert len(list(hook.mailbox.list_requests("a"))) == 1


def test_a_workflow_that_can_not_be_canceled_is_an_error_of_its_own(hook):
    put(hook, "done", "SUCCESSFUL")
    with pytest.raises(RayWorkflowInputError, match="'done' has been successful"):
        cancel(workflow_id="done")
    with pytest.raises(RayWorkflowNotFoundError, match="no workflow 'none' in"):
        cancel(workflow_id="none")
    assert cancel(workflow_id="none", missing_ok=True) == []


def test_an_old_workflow_is_deleted(hook):
    put(hook, "old", "SUCCESSFUL", hours=50)
    put(hook, "new", "SUCCESSFUL", hours=1)
    put(hook, "old.failed", "FAILED", hours=50)
    assert delete(statuses=["SUCCESSFUL"], older_than=timedelta(hours=48)) == ["old"]
    assert [status(hook, name) for name in ("old", "new", "old.failed")] == [
        "NONE",
        "SUCCESSFUL",
        "FAILED",
    ]


def test_a_workflow_that_ended_long_ago_is_pruned_and_one_that_can_go_on_is_not(hook):
    put(hook, "old", "SUCCESSFUL", hours=50)
    put(hook, "old.failed", "FAILED", hours=50)
    put(hook, "old.stopped", "RESUMABLE", hours=50)
    put(hook, "new", "SUCCESSFUL", hours=1)
    for dry_run in (True, False):
        operator = RayWorkflowPruneOperator(
            task_id="prune", older_than=timedelta(days=2), dry_run=dry_run
        )
        assert operator.execute({}) == ["old", "old.failed"]
    assert [status(hook, name) for name in ("old", "old.failed", "old.stopped", "new")] == [
        "NONE",
        "NONE",
        "RESUMABLE",
        "SUCCESSFUL",
    ]
    with pytest.raises(ValueError, match="'RUNNING' is not a status to select by here"):
        RayWorkflowPruneOperator(task_id="p", older_than=timedelta(0), statuses=["RUNNING"])


def test_prune_is_a_delete_by_age_and_has_its_parameters(hook):
    put(hook, "dag.old", "FAILED", hours=50)
    put(hook, "other", "FAILED", hours=50)
    arguments = {"task_id": "p", "statuses": ["FAILED"], "older_than": timedelta(0)}
    prune = RayWorkflowPruneOperator(id_prefix="dag.", dry_run=True, **arguments)
    assert prune.execute({}) == ["dag.old"]
    assert RayWorkflowPruneOperator(id_prefix="dag.", **arguments).execute({}) == ["dag.old"]
    assert (status(hook, "dag.old"), status(hook, "other")) == ("NONE", "FAILED")


@pytest.mark.parametrize(
    "option", [{"older_than": timedelta(1)}, {"dry_run": True}, {"keep_outputs": True}]
)
def test_what_selects_among_many_does_not_go_with_an_id(option: dict):
    with pytest.raises(ValueError, match="go with statuses"):
        RayWorkflowDeleteOperator(task_id="d", workflow_id="w", **option)


def test_an_age_that_is_none_is_refused_when_the_dag_is_read():
    for age in (timedelta(-1), 30):
        with pytest.raises(ValueError, match="older_than must be a timedelta"):
            RayWorkflowPruneOperator(task_id="p", older_than=age)


def test_a_workflow_of_any_age_is_deleted_by_its_status_also_if_its_clock_was_ahead(hook):
    put(hook, "ahead", "FAILED", hours=-50)
    assert delete(statuses=["FAILED"]) == ["ahead"]


def test_a_running_workflow_is_not_deleted(hook):
    put(hook, "a", "RUNNING")
    live(hook, "m")
    with pytest.raises(RayWorkflowStillActiveError, match="'a' is running or pending"):
        delete(workflow_id="a")
    assert status(hook, "a") == "RUNNING"


def test_a_missing_one_is_an_error_unless_it_may_be_missing(hook):
    with pytest.raises(RayWorkflowNotFoundError):
        delete(workflow_id="none")
    assert delete(workflow_id="none", missing_ok=True) == []


def test_nothing_to_resume_starts_nothing(hook):
    put(hook, "a", "FAILED")
    assert RayWorkflowResumeAllOperator(task_id="t").execute({}) == []


def test_a_resume_of_all_signs_with_the_secret_of_its_connection(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_WORKFLOW_SIGNING_KEY", "")  # put back afterwards
    monkeypatch.delenv("RAY_WORKFLOW_SIGNING_KEY")
    signed = connection(storage=str(tmp_path), signing_secret="s3cr3t")
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", signed)
    assert RayWorkflowResumeAllOperator(task_id="t").execute({}) == []
    assert os.environ["RAY_WORKFLOW_SIGNING_KEY"] == "s3cr3t"


def test_one_with_a_damaged_status_is_deleted_by_its_status(hook, tmp_path):
    put(hook, "a", "FAILED")
    put(hook, "b", "FAILED")
    (document,) = (tmp_path / "v1/status/a").rglob("*FAILED*")
    document.write_bytes(b"torn")
    assert sorted(delete(statuses=["FAILED"])) == ["a", "b"]
    assert hook.list_ids(set(WorkflowStatus)) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Give either workflow_id or statuses"),
        ({"workflow_id": "a", "statuses": ["FAILED"]}, "Give either workflow_id or statuses"),
        ({"statuses": "FAILED"}, "statuses must be a list of statuses, not 'FAILED'"),
        ({"statuses": ["SUCCESSFUL"]}, "'SUCCESSFUL' is not a status to select by here"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused_when_the_dag_is_parsed(arguments, message):
    with pytest.raises(ValueError, match=message):
        RayWorkflowCancelOperator(task_id="t", **arguments)


def test_an_id_that_can_not_be_one_is_refused(hook):
    with pytest.raises(RayWorkflowInputError, match="relative path"):
        delete(workflow_id="../x")
