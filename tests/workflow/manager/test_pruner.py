"""A manager deletes by itself what its retention does not keep, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import effects
import hurried
import pytest
import ray
from noting_store import NotingStore
from sample_records import status_record, store_run
from waiting import until, wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.manager.lease_keeper import LeaseKeeper
from airflow_provider_rayworkflow.workflow.manager.pruner import Pruner
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals, Registry
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.prune import prune_few_by_few
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.index_keys import INDEX_ROOTS
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S, Tenure

DAY_S = 86_400.0
GRAPH = Graph(tasks=[Task(name="t", function=0, arguments=0)], blobs=[b""])
#: How often the managers of these tests look.
OFTEN = {"retention_s": 0.01, "left_logs_s": 0.01}


@ray.remote
def wait_at_gate() -> None:
    effects.gate.wait()


class Storage:
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.bytes = store or MemoryStore()
        self.store = WorkflowStore(self.bytes)

    def add(self, workflow_id: str, status: str = "SUCCESSFUL", *, days_old: float) -> None:
        at = time.time() - days_old * DAY_S
        record = status_record(
            WorkflowStatus(status),
            workflow_id,
            manager_id="gone",
            created_at=at - 10,
            started_at=at - 5,
            ended_at=None if status == "RUNNING" else at,
        )
        store_run(self.store, record, GRAPH)

    def index(self) -> None:
        rebuild(self.store, now=time.time())

    @property
    def ids(self) -> set[str]:
        return set(self.store.list_statuses())


@pytest.fixture
def storage() -> Storage:
    return Storage()


def test_what_ended_longer_ago_than_its_status_is_kept_is_deleted(
    fresh: None, storage: Storage
) -> None:
    storage.add("done", days_old=40)
    storage.add("done of late", days_old=20)
    storage.add("failed", "FAILED", days_old=100)
    storage.add("failed of late", "FAILED", days_old=40)
    storage.add("canceled", "CANCELED", days_old=1000)
    storage.add("interrupted", "RUNNING", days_old=1000)
    with hurried.in_process(storage.bytes, **OFTEN):
        workflow.init(retention={"SUCCESSFUL": 30, "FAILED": 90})
        wait_until(lambda: storage.ids.isdisjoint({"done", "failed"}))
        kept = {"done of late", "failed of late", "canceled", "interrupted"}
        assert {workflow_id for workflow_id, _ in workflow.list_all()} == kept
        workflow.init(retention={"FAILED": 30})
        wait_until(lambda: "failed of late" not in storage.ids)
        assert storage.ids == kept - {"failed of late"}


def test_what_was_suspended_is_deleted_if_the_retention_names_it_and_what_runs_or_ran_never(
    fresh: None, storage: Storage
) -> None:
    """Since when a workflow does not run whose manager is gone is not known."""
    storage.add("suspended", "RESUMABLE", days_old=2)
    storage.add("interrupted", "RUNNING", days_old=20)
    storage.add("resumed", "RUNNING", days_old=2)
    with hurried.in_process(storage.bytes, **OFTEN):
        workflow.run_async(wait_at_gate.bind(), workflow_id="resumed")
        workflow.init(retention={"RESUMABLE": 1, "SUCCESSFUL": 1})
        wait_until(lambda: "suspended" not in storage.ids)
        assert workflow.get_status("interrupted") == "RESUMABLE"
        assert workflow.get_status("resumed") == "RUNNING"
        effects.gate.set()
        assert workflow.get_output("resumed") is None


def test_a_damaged_workflow_keeps_the_others_from_nothing(fresh: None, storage: Storage) -> None:
    storage.add("damaged", days_old=50)
    storage.add("whole", days_old=40)
    storage.index()
    [entry] = storage.bytes.list(f"{keys.STATUSES}/damaged")
    storage.bytes.put(entry.key, b"damaged")
    with hurried.in_process(storage.bytes, **OFTEN):
        workflow.init(retention={"SUCCESSFUL": 30})
        wait_until(lambda: "whole" not in storage.ids)
    assert "damaged" in storage.ids


def test_a_storage_that_fails_costs_a_round_and_nothing_else(fresh: None, storage: Storage) -> None:
    class Failing(MemoryStore):
        fails = 3

        def list(self, prefix: str):  # type: ignore[no-untyped-def]
            if prefix.startswith(keys.INDEX) and self.is_pruned and self.fails:
                self.fails -= 1
                raise DataLoadError(prefix, "it does not answer", is_transient=True)
            return super().list(prefix)

        is_pruned = False

    storage.bytes = failing = Failing()
    storage.store = WorkflowStore(failing)
    storage.add("done", days_old=40)
    storage.index()
    with hurried.in_process(failing, **OFTEN):
        failing.is_pruned = True
        workflow.init(retention={"SUCCESSFUL": 30})
        wait_until(lambda: "done" not in storage.ids)
    assert failing.fails == 0


@asynccontextmanager
async def pruning(
    storage: Storage, forget: Callable[[str], None], *, most: int = 500, **intervals: float
) -> AsyncIterator[Pruner]:
    """Alone, without a manager around it."""
    known = Registry(
        storage.store,
        manager_id="m",
        clock=time.time,
        tenure=Tenure(LEASE_TTL_S, time.monotonic),
        intervals=Intervals(**intervals),
    )
    await known.changes.open(0)
    known.tenure.extend(time.monotonic())
    lease = LeaseKeeper(known, Limits(), "actor", process=None, version="", cluster="")
    pruner = Pruner(known, lease, forget=forget, most_a_round=most)
    watching = asyncio.create_task(pruner.watch())
    yield pruner
    await pruner.close()
    watching.cancel()
    await known.changes.close()


async def test_a_round_ends_with_so_many(storage: Storage) -> None:
    for number in range(5):
        storage.add(f"done {number}", days_old=50 - number)
    storage.index()
    forgotten: list[str] = []

    async with pruning(storage, forgotten.append, most=2, retention_s=3600.0) as pruner:
        assert pruner.set_retention({"SUCCESSFUL": 30}, by="a test")
        assert not pruner.set_retention({"SUCCESSFUL": 30}, by="another one")
        await until(lambda: len(forgotten) == 2)
    assert forgotten == ["done 0", "done 1"]
    assert storage.ids == {"done 2", "done 3", "done 4"}


async def test_a_damaged_index_costs_no_reading_of_all_that_is_stored_and_is_waited_for() -> None:
    storage = Storage(store := NotingStore())
    storage.add("done", days_old=40)
    storage.index()
    store.delete_folder(keys.CHANGES)
    root = max(store.list(INDEX_ROOTS), key=lambda entry: entry.key)
    store.put(root.key, b"damaged")
    forgotten: list[str] = []

    def looks() -> int:
        return store.count("get", root.key)

    often = {"retention_s": 3600.0, "left_logs_s": 0.01}
    async with pruning(storage, forgotten.append, **often) as pruner:
        store.calls.clear()
        pruner.set_retention({"SUCCESSFUL": 30}, by="a test")
        await until(lambda: looks() >= 3)
        assert store.count("list", keys.STATUSES) == 0
        await asyncio.to_thread(storage.index)
        await until(lambda: forgotten == ["done"])
    assert storage.ids == set()


def test_the_oldest_go_first_and_only_when_they_are_asked_for(storage: Storage) -> None:
    for number in range(3):
        storage.add(f"done {number}", days_old=50 - number)
    storage.index()
    few_by_few = prune_few_by_few(
        storage.store, "SUCCESSFUL", older_than_s=DAY_S, now=time.time(), few=2
    )
    assert len(storage.ids) == 3
    assert [one.workflow_id for one in next(few_by_few)] == ["done 0", "done 1"]
    assert storage.ids == {"done 2"}
    assert [[one.workflow_id for one in few] for few in few_by_few] == [["done 2"]]


@pytest.mark.parametrize("wrong", [{"RUNNING": 1}, {"FAILED": 0}])
def test_init_refuses_a_retention_that_makes_no_sense(
    workflows: object, wrong: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="'retention' has"):
        workflow.init(retention=wrong)
