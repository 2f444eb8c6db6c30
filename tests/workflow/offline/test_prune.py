"""What prune deletes, and what it leaves."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import ray

from airflow_provider_rayworkflow.workflow import api, testing
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowExecutionError
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.events import EventStore, StoredEvent


@ray.remote
def large(value: int) -> bytes:
    return bytes([value]) * 50_000


@ray.remote
def joined(*values: bytes) -> bytes:
    return b"".join(values)


@ray.remote
def fail() -> None:
    raise RuntimeError


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def workflows(store: MemoryStore) -> Iterator[object]:
    with testing.in_process(store) as running:
        running.run(joined.bind(large.bind(1), large.bind(2)), workflow_id="done")
        with pytest.raises(WorkflowExecutionError):
            running.run(fail.bind(), workflow_id="failed")
        running.run_async(api.sleep(1000), workflow_id="stopped")
        running.suspend("stopped")
        running.run_async(api.sleep(1000), workflow_id="running")
        yield running


def test_a_workflow_that_ended_long_ago_is_deleted_and_one_that_can_go_on_is_not(
    workflows, store: MemoryStore
):
    assert workflows.prune(3600) == []
    assert workflows.prune(0, dry_run=True) == ["done", "failed"]
    assert len(workflows.list_all()) == 4
    assert workflows.prune(0) == ["done", "failed"]
    assert dict(workflows.list_all()) == {"stopped": "RESUMABLE", "running": "RUNNING"}
    assert [e.key for e in store.list("v1") if "/done/" in e.key or "/failed/" in e.key] == []


def test_a_workflow_that_can_go_on_is_deleted_if_asked_for(workflows):
    assert workflows.prune(0, statuses={"RESUMABLE"}) == ["stopped"]
    assert workflows.get_status("running") == "RUNNING"


def test_outputs_may_be_kept(workflows, store: MemoryStore):
    whole = workflows.get_output("done")
    before = sum(entry.size for entry in store.list("v1/workflows/done"))
    assert workflows.prune(0, statuses={"SUCCESSFUL"}, keep_outputs=True) == ["done"]
    after = sum(entry.size for entry in store.list("v1/workflows/done"))
    assert before > 200_000
    assert after < 110_000
    assert workflows.get_output("done") == whole
    assert workflows.run(joined.bind(), workflow_id="done") == whole
    assert workflows.get_status("done") == "SUCCESSFUL"
    assert workflows.prune(0, statuses={"SUCCESSFUL"}, keep_outputs=True) == []
    assert workflows.prune(0, statuses={"SUCCESSFUL"}) == ["done"]


def test_a_damaged_workflow_keeps_the_others_from_nothing(workflows, store: MemoryStore):
    [key] = [entry.key for entry in store.list("v1/status/done")]
    store.put(key, store.get(key)[:20])
    found = prune(WorkflowStore(store), older_than_s=0, now=time.time())
    assert [one.workflow_id for one in found] == ["failed"]


@pytest.mark.parametrize("statuses", [set(), {"RUNNING"}, {"SUCCESSFUL", "DONE"}])
def test_other_statuses_are_refused(workflows, statuses: set[str]):
    with pytest.raises(ValueError, match="statuses must be of"):
        workflows.prune(0, statuses=statuses)
    with pytest.raises(ValueError, match="older_than must be"):
        workflows.prune(-1)


def add_event(store: MemoryStore, workflow_id: str, *, posted_at: float) -> None:
    EventStore(store).add(
        StoredEvent(
            workflow_id=workflow_id, event_key="key", payload=1, number=0, posted_at=posted_at
        )
    )


def test_events_go_with_their_workflow(workflows, store: MemoryStore):
    for workflow_id in ("done", "failed", "stopped", "running"):
        add_event(store, workflow_id, posted_at=time.time())
    workflows.delete("failed")
    assert workflows.prune(0) == ["done"]
    assert set(EventStore(store).list_segments()) == {"stopped", "running"}


def test_events_of_unknown_workflows_are_pruned_by_their_age(workflows, store: MemoryStore):
    now = time.time()
    add_event(store, "old", posted_at=now - 100)
    add_event(store, "new", posted_at=now - 10)
    store.put(keys.event_key("damaged", "key", 0), b"damaged")
    workflows.prune(50, dry_run=True)
    assert set(EventStore(store).list_segments()) == {"old", "new", "damaged"}
    workflows.prune(50)
    assert set(EventStore(store).list_segments()) == {"new"}
