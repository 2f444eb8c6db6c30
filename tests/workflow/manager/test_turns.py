"""Workflows that are resumed together are under way at the same time, and get their slots in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from sample_records import lease, status_record, store_run
from test_submission_reader import GONE, GRAPH, InstantRunner, managing, until

from airflow_provider_rayworkflow.workflow.manager.turns import Turn, in_turns
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data, Entry
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild

pytestmark = pytest.mark.timeout(120)


class FarStore(MemoryStore):
    """Several requests are under way at once; a test may hold some of them up.

    :ivar claims: where claims wait for each other.
    :ivar calls: what has come.
    :ivar held: the begin of a key, or a folder, each with another one: a call for it waits until one for the
        other has come.
    """

    reads_at_once = 4

    def __init__(self) -> None:
        super().__init__()
        self.claims = threading.Barrier(1)
        self.held: dict[str, str] = {}
        self.calls: list[str] = []
        self._has_come = threading.Condition()

    def list(self, folder: str) -> Iterator[Entry]:
        self._pass(f"list {folder}")
        return super().list(folder)

    def put(self, key: str, data: Data) -> None:
        self._pass(f"put {key}")
        super().put(key, data)

    def put_if_absent(self, key: str, data: Data) -> bool:
        if key.endswith(".epoch"):
            self.claims.wait(60)
        self._pass(f"put {key}")
        return super().put_if_absent(key, data)

    def _pass(self, call: str) -> None:
        with self._has_come:
            self.calls.append(call)
            self._has_come.notify_all()
            for held, other in self.held.items():
                if call.startswith(held):
                    assert self._has_come.wait_for(lambda other=other: self._has(other), 60)

    def _has(self, begin: str) -> bool:
        return any(call.startswith(begin) for call in self.calls)


def stored(*workflow_ids: str, status: Status = Status.RESUMABLE) -> FarStore:
    store = FarStore()
    opened = WorkflowStore(store)
    for workflow_id in workflow_ids:
        record = status_record(status, workflow_id, manager_id="before", created_at=1.0)
        store_run(opened, record, Graph.from_bytes(GRAPH))
    rebuild(opened, now=1.0)
    store.delete_folder(keys.CHANGES)
    store.calls.clear()
    return store


def read_statuses(store: FarStore) -> list[str]:
    return [key.status for _, key in sorted(WorkflowStore(store).list_statuses().items())]


async def test_all_that_can_be_resumed_is_resumed_at_the_same_time_where_the_storage_gains_by_it() -> (
    None
):
    ids = [f"w{number}" for number in range(8)]
    store = stored(*ids)

    async with managing(store, runner=InstantRunner(is_endless=True)) as manager:
        store.claims = threading.Barrier(4)
        assert await manager.resume_all(include_failed=False) == [(one, None) for one in ids]


async def test_the_first_ones_get_the_slots_and_the_others_wait_in_their_order_however_long_each_takes() -> (
    None
):
    store = stored("w0", "w1", "w2", "w3")
    store.held = {
        "list v1/status/w0": "list v1/workflows/w3",
        "put v1/workflows/w1": "put v1/status/w3",
    }
    limits = Limits(max_running=1)

    async with managing(store, limits=limits, runner=InstantRunner(is_endless=True)) as manager:
        assert len(await manager.resume_all(include_failed=False)) == 4
        for ended in range(4):
            statuses = ["CANCELED"] * ended + ["RUNNING"] + ["PENDING"] * (3 - ended)
            await until(lambda expected=statuses: read_statuses(store) == expected)
            await manager.cancel(f"w{ended}")


async def test_one_that_can_not_be_resumed_keeps_no_slot_and_no_turn_from_the_others() -> None:
    store = stored("w0", "w1", "w2")
    store.put(keys.epoch_key("w0", 1), b"damaged")

    limits = Limits(max_running=1, max_pending=0)
    async with managing(store, limits=limits, runner=InstantRunner(is_endless=True)) as manager:
        resumed = await manager.resume_all(include_failed=False)
        found = [(workflow_id, type(error).__name__) for workflow_id, error in resumed]
        assert found == [("w0", "CorruptedDataError"), ("w1", "NoneType"), ("w2", "Full")]


async def test_two_calls_that_resume_all_resume_each_workflow_once() -> None:
    ids = [f"w{number}" for number in range(5)]
    store = stored(*ids)

    async with managing(store, runner=InstantRunner(is_endless=True)) as manager:
        first, second = await asyncio.gather(
            manager.resume_all(include_failed=False), manager.resume_all(include_failed=True)
        )
        assert first == [(one, None) for one in ids]
        assert second == []
    assert {WorkflowStore(store).last_epoch(one) for one in ids} == {2}


async def test_a_restarted_manager_recovers_several_at_the_same_time() -> None:
    ids = [f"w{number}" for number in range(8)]
    store = stored(*ids, status=Status.RUNNING)

    WorkflowStore(store).leases.write(lease("before", actor_id="actor", process=GONE))
    store.claims = threading.Barrier(4)
    async with managing(store, runner=InstantRunner(is_endless=True)) as manager:
        found = dict(await manager.queries.list_all({Status.RUNNING}))
        assert found == dict.fromkeys(ids, Status.RUNNING)


async def test_starts_that_are_canceled_come_to_their_end() -> None:
    begun: list[str] = []

    async def start(workflow_id: str, turn: Turn) -> None:
        begun.append(workflow_id)
        if workflow_id != "a":
            await turn.come()
        await asyncio.Event().wait()

    starting = asyncio.ensure_future(in_turns(start, ["a", "b", "c", "d"], at_once=2))
    await until(lambda: begun == ["a", "b"])
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert begun == ["a", "b"]
