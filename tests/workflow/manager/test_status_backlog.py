"""A status that can't be written: no reader believes for ever that the workflow runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import effects
import pytest
import ray
from hurried import in_process
from sample_records import claim_epoch, status_record
from waiting import until, wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError, StorageError
from airflow_provider_rayworkflow.workflow.manager.locks import Locks
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals, Registry
from airflow_provider_rayworkflow.workflow.manager.status_backlog import StatusBacklog
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data
from airflow_provider_rayworkflow.workflow.storage.leases import Tenure
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

pytestmark = pytest.mark.timeout(60)


class DenyingStore(MemoryStore):
    """A store that for a while doesn't take objects with certain words in their keys."""

    def __init__(self) -> None:
        super().__init__()
        self.denied: tuple[str, ...] = ()

    def put(self, key: str, data: Data) -> None:
        if any(word in key for word in self.denied):
            raise DataSaveError(f"Can't write {key!r}: access denied.", key=key)
        super().put(key, data)


@pytest.fixture
def store() -> Iterator[DenyingStore]:
    with effects.fresh():
        yield DenyingStore()


def shown(store: MemoryStore) -> str | None:
    """The status that a reader of the storage sees."""
    found = StatusReader(WorkflowStore(store)).read("w")
    return found.status if found else None


@ray.remote
def note(value):
    effects.note(value)
    return value


@ray.remote
def wait_at_the_gate():
    effects.gate.wait()


@pytest.mark.invariant(4)
def test_a_final_status_that_is_denied_is_written_later(store: DenyingStore):
    with in_process(store, retry_s=0.01) as workflows:
        store.denied = ("-SUCCESSFUL-", "-RESUMABLE-")
        with pytest.raises(workflow.WorkflowError, match="access denied"):
            workflows.run(note.bind(1), workflow_id="w")
        assert shown(store) == "RUNNING"
        store.denied = ()
        wait_until(lambda: shown(store) == "RESUMABLE")
        assert workflows.resume("w") == 1
    assert effects.calls == [1]
    assert shown(store) == "SUCCESSFUL"


@pytest.mark.invariant(3)
def test_it_is_not_written_over_what_came_after_it(store: DenyingStore):
    with in_process(store, retry_s=0.01) as workflows:
        # Who asked only after its end would have it resumed.
        running = workflows.run_async(wait_at_the_gate.bind(), workflow_id="w")
        store.denied = ("00000001-0001-",)
        effects.gate.set()
        with pytest.raises(workflow.WorkflowError, match="access denied"):
            ray.get(running)
        workflows.resume("w")
        store.denied = ()
        workflows.run(note.bind(2), workflow_id="other")
    assert [key for key in keys_of(store) if "/w/" in key and "SUCCESSFUL" not in key] == []


def test_a_cancel_that_is_denied_is_an_error_and_done_later(store: DenyingStore):
    with in_process(store, retry_s=0.01) as workflows:
        workflows.run_async(wait_at_the_gate.bind(), workflow_id="w")
        store.denied = ("-CANCELED-",)
        with pytest.raises(StorageError, match="access denied"):
            workflows.cancel("w")
        store.denied = ()
        wait_until(lambda: shown(store) == "CANCELED")


def test_a_start_that_is_denied_leaves_no_claim_that_others_wait_for(store: DenyingStore):
    with in_process(store, retry_s=0.01) as workflows:
        store.denied = ("-RUNNING-",)
        with pytest.raises(StorageError, match="access denied"):
            workflows.run(note.bind(1), workflow_id="w")
        assert shown(store) is None
        wait_until(lambda: shown(store) == "RESUMABLE")
        store.denied = ()
        assert workflows.run(note.bind(1), workflow_id="w") == 1
    assert effects.calls == [1]


def test_a_takeover_leaves_no_status_behind(store: DenyingStore):
    with testing.in_process(store) as workflows:
        workflows.run_async(wait_at_the_gate.bind(), workflow_id="w")
        workflows.crash()
    effects.gate.set()
    with testing.in_process(store) as workflows:
        workflows.resume("w")
    assert len([key for key in keys_of(store) if key.startswith("v1/status/w/")]) == 1


def keys_of(store: MemoryStore) -> list[str]:
    return [entry.key for entry in store.list("v1/status")]


async def test_one_that_comes_while_an_earlier_one_is_dealt_with_is_not_forgotten(
    store: DenyingStore,
):
    """The claims are read for the first run's status, and meanwhile the second run ends as well."""

    known = Registry(
        WorkflowStore(store),
        manager_id="m",
        clock=time.time,
        tenure=Tenure(),
        intervals=Intervals(retry_s=0.01),
    )
    await known.changes.open(0)
    late = StatusBacklog(known, Locks())
    late.add(record(epoch=1), replaces=None)
    earlier = asyncio.Event()
    in_thread = known.in_thread

    async def and_meanwhile(function: Callable[..., bool], *args: object) -> bool:
        written = await in_thread(function, *args)
        if not earlier.is_set():
            earlier.set()
            claim_epoch(known.store)
            late.add(record(epoch=1, started_at=2.0), replaces=None)
        return written

    known.in_thread = and_meanwhile  # type: ignore[method-assign]
    await until(lambda: shown(store) == "RESUMABLE")


def record(epoch: int, **changes: object) -> StatusRecord:
    return status_record(workflow.WorkflowStatus.RESUMABLE, epoch=epoch, created_at=1.0, **changes)
