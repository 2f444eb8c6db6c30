"""What processes that act without a manager say of their actions."""

from __future__ import annotations

from contextlib import suppress

from sample_records import status_record

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLog


def only_log(store: WorkflowStore) -> ChangeLog:
    [writer] = store.changes.writers()
    return store.changes.read(writer)


def write(store: WorkflowStore, workflow_id: str) -> None:
    store.write_status(status_record(WorkflowStatus.FAILED, workflow_id))


def test_an_action_that_failed_before_it_noted_a_status_is_not_done():
    store = WorkflowStore(MemoryStore())
    with suppress(OSError), store.notes.changing(["w", "v"]):
        write(store, "w")
        raise OSError("no answer: v may have been written")
    assert not only_log(store).is_done


def test_an_action_of_which_a_part_failed_is_not_done():
    store = WorkflowStore(MemoryStore())
    with store.notes.changing(["w", "v"]):
        write(store, "w")
        with suppress(OSError), store.notes.changing(["v"]):
            raise OSError("no answer")
    assert not only_log(store).is_done


def test_an_action_that_noted_all_statuses_is_done_also_when_it_fails_later():
    store = WorkflowStore(MemoryStore())
    with suppress(OSError), store.notes.changing(["w"]):
        write(store, "w")
        raise OSError("after it")
    assert only_log(store).is_done


def test_an_action_that_changed_less_than_it_announced_is_done():
    store = WorkflowStore(MemoryStore())
    with store.notes.changing(["w", "v"]):
        write(store, "w")
    assert only_log(store).is_done
