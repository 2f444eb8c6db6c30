"""A retry that comes before its workflow is suspended for the try before waits for that."""

from __future__ import annotations

from pathlib import Path

import pytest
from dag_test import connection

from airflow_provider_rayworkflow.hooks import RayWorkflowHook, StoredWorkflow
from airflow_provider_rayworkflow.tries.pending_stop import find_settled
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.mailbox import Owner, StopRequest


def found(status: WorkflowStatus) -> StoredWorkflow:
    record = StatusRecord(
        workflow_id="w", status=status, epoch=1, number=0, manager_id="m", created_at=0.0
    )
    return StoredWorkflow(record=record, status=status)


RUNNING, RESUMABLE = found(WorkflowStatus.RUNNING), found(WorkflowStatus.RESUMABLE)


class Hook(RayWorkflowHook):
    """Finds what it is told to."""

    found: StoredWorkflow | None = RUNNING

    def find(self, workflow_id: str) -> StoredWorkflow | None:
        return self.found


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hook:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", connection(storage=str(tmp_path)))
    return Hook()


class Manager:
    """Obeys a request after so many looks at the workflow."""

    def __init__(self, hook: Hook) -> None:
        self.slept: list[float] = []
        self.obeys_after = 3
        self._hook = hook

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == self.obeys_after:
            self._hook.found = RESUMABLE
            for request in self._hook.mailbox.list_requests("w"):
                self._hook.mailbox.delete_request(request)


@pytest.fixture
def manager(hook: Hook) -> Manager:
    hook.mailbox.take_over(Owner(workflow_id="w", token="before", submission_id="", since=1.0))
    return Manager(hook)


def test_a_request_of_the_owner_to_suspend_it_is_waited_for(hook: Hook, manager: Manager):
    hook.request_stop("w", token="before", how="suspend")
    assert find_settled(hook, "w", sleep=manager.sleep) is RESUMABLE
    assert len(manager.slept) == 3


def test_a_request_that_no_manager_obeys_is_not_waited_for_without_end(
    hook: Hook, manager: Manager
):
    hook.request_stop("w", token="before", how="suspend")
    manager.obeys_after = 10_000
    assert find_settled(hook, "w", sleep=manager.sleep) is RUNNING
    assert sum(manager.slept) == 30.0


@pytest.mark.parametrize(
    ("token", "how"),
    [("", "suspend"), ("earlier still", "suspend"), ("before", "cancel")],
    ids=["none", "of another try", "to cancel"],
)
def test_no_other_request_is_waited_for(hook: Hook, manager: Manager, token: str, how: str):
    if token:
        hook.mailbox.request_stop(
            StopRequest(workflow_id="w", token=token, how=how, requested_at=1.0)
        )
    assert find_settled(hook, "w", sleep=manager.sleep) is RUNNING
    assert manager.slept == []


@pytest.mark.parametrize("status", [None, RESUMABLE])
def test_what_does_not_run_is_not_waited_for(
    hook: Hook, manager: Manager, status: StoredWorkflow | None
):
    """A request of a try whose workflow never began may be left."""
    hook.request_stop("w", token="before", how="suspend")
    hook.found = status
    assert find_settled(hook, "w", sleep=manager.sleep) is status
    assert manager.slept == []
