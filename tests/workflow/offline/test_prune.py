"""What prune deletes, and what it leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import ray
from noting_store import NotingStore
from sample_records import lease, status_record, store_run

from airflow_provider_rayworkflow.workflow import api, testing
from airflow_provider_rayworkflow.workflow.exceptions import (
    DataSaveError,
    StorageError,
    WorkflowExecutionError,
)
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data
from airflow_provider_rayworkflow.workflow.storage.change_logs import KEPT_S, Change
from airflow_provider_rayworkflow.workflow.storage.events import EventStore, StoredEvent
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import Process


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


# ---- what those who follow the logs of changes are told


def test_what_an_earlier_prune_tells_watchers_stays_for_those_who_look_now_and_then():
    with_ended_ones(store := NotingStore())
    opened = WorkflowStore(store)
    ended = status_record(WorkflowStatus.SUCCESSFUL, "w0", manager_id="gone", number=1)
    opened.write_status(ended)  # the end of a run, in a log that the next prune takes over

    def hints() -> set[str]:
        return {one.segment for writer in opened.changes.writers() for one in rows(writer)}

    def rows(writer: str) -> Sequence[Change]:
        return opened.changes.read(writer).changes

    def prune_at(now: float) -> None:
        prune(WorkflowStore(store), older_than_s=1000.0, now=now, statuses=["CANCELED"])

    prune_at(10_000.0)
    assert hints() == {"w0"}
    prune_at(10_000.0 + 1.5 * KEPT_S)
    assert hints() == {"w0"}
    prune_at(10_000.0 + 86_400)
    assert hints() == set()


# ---- several at the same time


class FarStore(NotingStore):
    """Several requests are under way at once.

    :ivar together: where deletions of statuses wait for each other.
    """

    def __init__(self, at_once: int = 4, together: int = 1) -> None:
        super().__init__()
        self.reads_at_once = at_once
        self.deletions = threading.Barrier(together)

    def delete_folder(self, folder: str) -> None:
        self.calls.append(("delete_folder", folder))
        if folder.startswith("v1/status/"):
            self.deletions.wait(60)
        super().delete_folder(folder)


GRAPH = Graph(tasks=[Task(name="t", function=0, arguments=0)], blobs=[b""])
IDS = [f"w{number}" for number in range(8)]


def with_ended_ones(store: NotingStore, status: str = "FAILED", manager_id: str = "gone") -> None:
    opened = WorkflowStore(store)
    for workflow_id in IDS:
        record = status_record(WorkflowStatus(status), workflow_id, manager_id=manager_id)
        store_run(opened, record, GRAPH)
    rebuild(opened, now=0.0)
    MemoryStore.delete_folder(store, keys.CHANGES)
    store.calls.clear()


def test_workflows_are_pruned_at_the_same_time_where_the_storage_gains_by_it():
    with_ended_ones(store := FarStore(together=4))
    found = prune(WorkflowStore(store), older_than_s=0, now=time.time())
    assert [one.workflow_id for one in found] == IDS
    assert WorkflowStore(store).list_statuses() == {}


def test_workflows_that_are_pruned_at_the_same_time_cost_no_more_requests():
    costs = []
    for at_once in (1, 4):
        with_ended_ones(store := FarStore(at_once))
        prune(WorkflowStore(store), older_than_s=0, now=time.time())
        costs.append(sorted(call for call, _ in store.calls))
    assert costs[0] == costs[1]


def test_what_is_pruned_is_announced_in_one_log_before_anything_is_written():
    with_ended_ones(store := FarStore())
    prune(WorkflowStore(store), older_than_s=None, now=time.time())
    writes = [key for call, key in store.calls if call not in ("get", "list")]
    logs = [key for key in writes if key.startswith(keys.CHANGES)]
    assert len(logs) == 2
    assert logs == [writes[0], writes[-1]]


def test_what_goes_wrong_with_some_is_told_in_their_order_and_the_others_are_pruned():
    with_ended_ones(store := FarStore())
    for workflow_id in ("w1", "w6"):
        [entry] = store.list(keys.status_folder(workflow_id))
        store.put(entry.key, b"damaged")
    told: list[str] = []
    found = prune(WorkflowStore(store), older_than_s=0, now=time.time(), report=told.append)
    assert [one.workflow_id for one in found] == [one for one in IDS if one not in ("w1", "w6")]
    assert [message.split()[1] for message in told] == ["w1", "w6"]


def test_a_storage_that_answers_no_more_ends_the_prune():
    class Gone(FarStore):
        is_gone = False

        def put_if_absent(self, key: str, data: Data) -> bool:
            if self.is_gone:
                raise DataSaveError("It does not answer.", is_transient=True)
            return super().put_if_absent(key, data)

    with_ended_ones(store := Gone(at_once=2))
    store.is_gone = True
    told: list[str] = []
    with pytest.raises(StorageError, match="does not answer"):
        prune(WorkflowStore(store), older_than_s=None, now=time.time(), report=told.append)
    assert 3 <= len(told) <= 4  # one more was under way


def test_a_lease_is_watched_once_for_all_workflows_of_its_manager():
    class Watched(FarStore):
        """Counts the reads of leases."""

        def __init__(self) -> None:
            super().__init__(at_once=8)
            self.reads = 0

        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            self.reads += key.startswith(keys.LEASES)
            return super().get(key, start, length)

    with_ended_ones(store := Watched(), "RUNNING", "m")
    elsewhere = Process(host="elsewhere", machine="", pid=1, started="")
    old = lease("m", process=elsewhere, ttl_s=1.0, renewed_at=0.0)
    WorkflowStore(store).leases.write(old)
    found = prune(WorkflowStore(store), older_than_s=0, now=time.time(), statuses=["RESUMABLE"])
    assert [one.workflow_id for one in found] == IDS
    # One for the list, one to see how each stands, one before each is deleted, and those of the watch. If all
    # watched it, that would be two more for each.
    assert store.reads < 1 + 8 + 8 + 2 * 8
