"""One look at all workflows: what it reads at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
from noting_store import NotingStore
from sample_records import lease, status_record

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLog
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs
from airflow_provider_rayworkflow.workflow.storage.listing import ListFilter, read_page
from airflow_provider_rayworkflow.workflow.storage.overview import Overview

S = TypeVar("S")
T = TypeVar("T")


class Together:
    """Notes how many items were given to be read at the same time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, call: Callable[[S], T], items: Iterable[S], /) -> list[T]:
        found = [*items]
        if found:
            self.sizes.append(len(found))
        return [call(item) for item in found]


def test_all_change_logs_are_read_at_the_same_time():
    store, together = WorkflowStore(NotingStore()), Together()
    for manager_id in ("a", "b", "c"):
        store.changes.write(ChangeLog(writer=manager_id))
        store.leases.write(lease(manager_id))
    Overview(store, in_threads=together).load()
    assert together.sizes == [3]


def test_a_watcher_reads_all_workflows_of_dead_managers_at_the_same_time():
    store, together = WorkflowStore(NotingStore()), Together()
    for number in range(5):
        store.write_status(status_record(WorkflowStatus.RUNNING, f"w{number}", manager_id="gone"))
    rebuild(store, now=0.0)
    store.bytes.delete_folder("v1/changes")
    overview = Overview(store, in_threads=together)
    assert overview.load()
    assert overview.changed_since(overview.version) == {f"w{number}" for number in range(5)}
    assert together.sizes == [5]


def lost_ones(number: int) -> WorkflowStore:
    """Workflows of a manager that is gone, in an index."""
    store = WorkflowStore(NotingStore())
    for one in range(number):
        record = status_record(WorkflowStatus.RUNNING, f"w{one:03}", manager_id="gone")
        store.write_status(record)
    rebuild(store, now=0.0)
    store.bytes.delete_folder("v1/changes")
    return store


@pytest.mark.parametrize("size", [1, 10, 50])
def test_a_page_reads_few_more_workflows_of_a_dead_manager_than_it_shows(size: int):
    store, together = lost_ones(300), Together()
    page = read_page(Overview(store, in_threads=together), ListFilter(), size=size)
    assert [one.status for one in page.rows] == [WorkflowStatus.RESUMABLE] * size
    assert size <= sum(together.sizes) <= size + 1 + 16
    assert len(together.sizes) <= 4 + size / 16 + 1


def test_a_filter_that_looks_at_all_workflows_of_a_dead_manager_reads_several_at_once():
    store, together = lost_ones(300), Together()
    chosen = ListFilter(statuses=frozenset({WorkflowStatus.FAILED}))
    assert read_page(Overview(store, in_threads=together), chosen, size=50).rows == []
    assert sum(together.sizes) == 300
    assert max(together.sizes) == 16
    assert len(together.sizes) <= 4 + 300 / 16 + 1


# ---- what was deleted by hand


def with_one_deleted_by_hand() -> WorkflowStore:
    """Of three workflows that the index has, one has no status document any more."""
    store = WorkflowStore(NotingStore())
    for workflow_id in ("a", "b", "c"):
        store.write_status(status_record(WorkflowStatus.FAILED, workflow_id, manager_id="gone"))
    rebuild(store, now=0.0)
    store.bytes.delete_folder("v1/changes")
    store.bytes.delete_folder(keys.status_folder("b"))
    return store


def shown(store: WorkflowStore) -> list[str]:
    return sorted(one.workflow_id for one in Overview(store).find({WorkflowStatus.FAILED}))


def test_a_list_does_not_show_a_workflow_that_it_looks_at_and_that_is_gone():
    store = with_one_deleted_by_hand()
    assert shown(store) == ["a", "b", "c"]  # the index says enough: nothing is read
    with store.notes.changing(["b"]):
        assert shown(store) == ["a", "c"]


def test_a_prune_takes_a_workflow_out_of_the_lists_whose_status_was_deleted_by_hand():
    store = with_one_deleted_by_hand()
    pruned = prune(store, older_than_s=0.0, now=100.0, statuses=["FAILED"], id_prefix="b")
    assert pruned == []
    assert shown(store) == ["a", "c"]
    LeftLogs(store).take_over(100.0)
    assert shown(store) == ["a", "c"]
