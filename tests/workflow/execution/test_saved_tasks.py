"""What a run deletes of what its tasks saved, and what it leaves to later runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.execution.saved_tasks import SavedTasks
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.saved_keys import (
    Version,
    saved_file,
    saved_folder,
    task_folder,
)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


class KeepingStore(MemoryStore):
    """A store that refuses deletions."""

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            raise DataSaveError(f"Can't delete {key!r}: access denied.", key=key)


def put_state(store: MemoryStore, task_id: str, epoch: int) -> str:
    key = saved_file(task_folder("w", task_id), Version(epoch, 1, 1), "state").key
    store.put(key, b"state")
    return key


def saved_keys(store: MemoryStore) -> list[str]:
    return [entry.key for entry in store.list(saved_folder("w"))]


async def test_a_run_that_has_ended_late_leaves_what_later_runs_save(threads: ThreadPoolExecutor):
    store = MemoryStore()
    tasks = SavedTasks("w", 1, store, threads)
    put_state(store, "a", 1)
    tasks.found(WorkflowStore(store).list_files("w"), [])
    later = put_state(store, "a", 2)
    await tasks.close(is_successful=True)
    assert saved_keys(store) == [later]


def test_what_committed_tasks_have_left_is_deleted_when_a_run_begins(threads: ThreadPoolExecutor):
    store = MemoryStore()
    put_state(store, "a", 1)
    kept = put_state(store, "b", 1)
    SavedTasks("w", 2, store, threads).found(WorkflowStore(store).list_files("w"), ["a"])
    assert saved_keys(store) == [kept]


def test_a_run_begins_though_what_a_task_has_left_can_not_be_deleted(
    threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
):
    store = KeepingStore()
    left = put_state(store, "a", 1)
    SavedTasks("w", 2, store, threads).found(WorkflowStore(store).list_files("w"), ["a"])
    assert saved_keys(store) == [left]
    assert "access denied" in caplog.text
