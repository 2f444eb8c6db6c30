"""One look at all workflows: what it reads at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
from noting_store import NotingStore
from sample_records import lease, status_record

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLog
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
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
