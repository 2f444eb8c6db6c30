"""Operations on inactive workflows, without a manager."""

from dataclasses import replace

import pytest
from sample_records import claim_epoch

from airflow_provider_rayworkflow.workflow.exceptions import (
    IllegalTransitionError,
    WorkflowNotFoundError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox, StopRequest
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

NOW = 100.0
GRAPH = Graph(tasks=[Task(name="f", function=0, arguments=0)], blobs=[b""])


@pytest.fixture
def store() -> WorkflowStore:
    return WorkflowStore(MemoryStore())


def claim(store: WorkflowStore, *, after: int = 0, manager_id: str = "m") -> None:
    assert claim_epoch(store, "w", GRAPH, after=after, manager_id=manager_id, now=NOW)


def write(store: WorkflowStore, status: WorkflowStatus) -> StatusRecord:
    """A workflow as manager ``m`` left it."""
    claim(store)
    record = StatusRecord(
        workflow_id="w", status=status, epoch=1, number=0, manager_id="m", created_at=NOW
    )
    store.write_status(record)
    return record


def live(store: WorkflowStore, manager_id: str) -> None:
    lease = Lease(manager_id=manager_id, actor_id="a", process=Process.current(), renewed_at=NOW)
    store.leases.write(lease)


def status(store: WorkflowStore) -> WorkflowStatus | None:
    found = StatusReader(store, lambda: NOW).read("w")
    return found and found.status


@pytest.mark.parametrize(
    "before", [WorkflowStatus.RUNNING, WorkflowStatus.FAILED, WorkflowStatus.RESUMABLE]
)
def test_a_workflow_whose_owner_is_dead_is_canceled_at_once(store, before):
    write(store, before)
    assert lifecycle.cancel(store, "w", now=NOW) is WorkflowStatus.CANCELED
    assert status(store) is WorkflowStatus.CANCELED
    assert lifecycle.cancel(store, "w", now=NOW) is WorkflowStatus.CANCELED
    assert list(Mailbox(store.bytes).list_requests()) == []


def test_a_live_owner_is_asked(store):
    write(store, WorkflowStatus.RUNNING)
    live(store, "m")
    assert lifecycle.cancel(store, "w", now=NOW) is WorkflowStatus.RUNNING
    expected = StopRequest.by_anybody("w", 1, how="cancel", now=NOW)
    assert list(Mailbox(store.bytes).list_requests()) == [expected]
    assert status(store) is WorkflowStatus.RUNNING


def test_a_workflow_that_is_being_resumed_is_asked_to_stop(store):
    write(store, WorkflowStatus.FAILED)
    claim(store, after=1, manager_id="other")
    live(store, "other")
    assert lifecycle.cancel(store, "w", now=NOW) is WorkflowStatus.FAILED
    assert len(list(Mailbox(store.bytes).list_requests())) == 1


def test_a_cancel_of_a_run_that_began_after_the_look_waits_for_that_one(store):
    write(store, WorkflowStatus.FAILED)
    found = StatusReader(store, lambda: NOW).read("w")
    mailbox = Mailbox(store.bytes)
    later = StopRequest.by_anybody("w", 2, how="cancel", now=NOW)
    mailbox.request_stop(later)
    assert not lifecycle.obey_pending_cancel(store, found, manager_id="m2", now=NOW)
    assert list(mailbox.list_requests()) == [later]


def test_a_successful_or_missing_workflow_is_not_canceled(store):
    with pytest.raises(WorkflowNotFoundError):
        lifecycle.cancel(store, "w", now=NOW)
    write(store, WorkflowStatus.SUCCESSFUL)
    with pytest.raises(IllegalTransitionError):
        lifecycle.cancel(store, "w", now=NOW)


def find(store: WorkflowStore):
    found = StatusReader(store, lambda: NOW).read("w")
    assert found is not None
    return found


def test_delete_leaves_nothing(store):
    write(store, WorkflowStatus.CANCELED)
    lifecycle.delete(store, find(store), manager_id="v", now=NOW)
    left = [entry.key for entry in store.bytes.list("v1")]
    # Change logs tell of it until they are taken over.
    assert [key for key in left if not key.startswith("v1/changes/")] == []
    assert rebuild(store, now=NOW) == 0
    LeftLogs(store, tell=lambda rows: None).take_over(NOW)
    assert store.changes.writers() == {}


@pytest.mark.parametrize("state", ["running", "being resumed", "resumed since"])
def test_nothing_is_deleted_of_a_workflow_that_a_manager_runs(store, state):
    record = write(store, WorkflowStatus.RUNNING if state == "running" else WorkflowStatus.FAILED)
    found = None
    if state == "running":
        live(store, "m")
    elif state == "being resumed":
        claim(store, after=1, manager_id="other")
        live(store, "other")
    else:
        found = find(store)
        claim(store, after=1, manager_id="other")
        store.write_status(replace(record, status=WorkflowStatus.RUNNING, epoch=2))
    before = {entry.key for entry in store.bytes.list("v1")}
    with pytest.raises(WorkflowStillActiveError):
        lifecycle.delete(store, found or find(store), manager_id="v", now=NOW)
    assert {entry.key for entry in store.bytes.list("v1")} == before


def test_a_start_that_died_before_its_status_hinders_no_deletion(store):
    write(store, WorkflowStatus.RESUMABLE)
    claim(store, after=1, manager_id="dead")
    assert lifecycle.cancel(store, "w", now=NOW) is WorkflowStatus.CANCELED


def test_the_age_of_what_was_canceled_counts_from_then(store):
    write(store, WorkflowStatus.RESUMABLE)
    lifecycle.cancel(store, "w", now=NOW + 1000)

    def pruned(after_s: float) -> list[str]:
        done = prune(store, older_than_s=100, now=NOW + after_s, statuses=["CANCELED"])
        return [one.workflow_id for one in done]

    assert pruned(1050) == []
    assert pruned(1150) == ["w"]


def test_a_dry_run_writes_nothing(store):
    write(store, WorkflowStatus.CANCELED)
    before = {entry.key for entry in store.bytes.list("v1")}
    done = prune(store, older_than_s=None, now=NOW, statuses=["CANCELED"], dry_run=True)
    assert [one.workflow_id for one in done] == ["w"]
    assert {entry.key for entry in store.bytes.list("v1")} == before
