"""Managers that share a storage: of those that want the same result at the same time, one computes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hand_runner import RETURNED, HandRunner, managing
from waiting import until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.model.causes import Cause
from airflow_provider_rayworkflow.workflow.model.records import TaskFailure
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.runtime.graphs.encoding import encode_graph
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Raised
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.cache_claims import CacheClaims
from airflow_provider_rayworkflow.workflow.storage.cache_entries import CachedObject, CacheEntries
from airflow_provider_rayworkflow.workflow.storage.cached_keys import CACHE
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusLook, StatusReader

INTERVALS = Intervals(cached_s=0.01)

pytestmark = pytest.mark.timeout(60)


@workflow.task(cache=workflow.Cache())
def load(x: int) -> int:
    return x


async def submit(manager: Manager, workflow_id: str, argument: int = 1) -> None:
    graph = encode_graph(load(argument), environment={}).to_bytes()
    await manager.submit(workflow_id, graph, user_metadata={})


def claims(store: MemoryStore) -> list[str]:
    return [one.key for one in store.list(CACHE) if one.key.endswith(".claim")]


def raised() -> Raised:
    failure = TaskFailure(
        task_id="load",
        type="OSError",
        message="",
        traceback="",
        cause=Cause.APPLICATION,
    )
    return Raised(failure=failure, exception=b"", retryable=False, times=RETURNED.times)


@asynccontextmanager
async def both_asking(
    store: MemoryStore, first: HandRunner, second: HandRunner
) -> AsyncIterator[Manager]:
    """Two managers of which the first one computes what the second one, which is given, has asked for, too."""
    async with (
        managing(store, first, "first", intervals=INTERVALS) as one,
        managing(store, second, "second", actor_id="b", intervals=INTERVALS) as other,
    ):
        await submit(one, "a")
        await until(lambda: first.errands)
        await submit(other, "b")
        yield other


async def test_the_second_manager_waits_and_takes_what_the_first_one_computes():
    store, first, second = MemoryStore(), HandRunner(), HandRunner()
    async with both_asking(store, first, second) as other:
        assert len(claims(store)) == 1
        await first.end("load")
        output = await other.queries.wait_output("b")
        assert output.status is WorkflowStatus.SUCCESSFUL
        assert not second.started
    assert claims(store) == []


async def test_if_the_first_manager_fails_the_second_one_computes():
    store, first, second = MemoryStore(), HandRunner(), HandRunner()
    async with both_asking(store, first, second) as other:
        await first.end("load", raised())
        await second.end("load")
        output = await other.queries.wait_output("b")
        assert output.status is WorkflowStatus.SUCCESSFUL
    assert claims(store) == []


async def test_a_claim_ends_with_the_lease_of_its_manager():
    bytes_, runner = MemoryStore(), HandRunner()
    store = WorkflowStore(bytes_)
    async with managing(bytes_, runner, "other", intervals=INTERVALS) as manager:
        await submit(manager, "seen")
        await until(lambda: claims(bytes_))
        [path] = claims(bytes_)
        await runner.end("load", raised())
        await until(lambda: not claims(bytes_))
        key = path.split("/")[2]
        store.leases.write(
            Lease(manager_id="gone", actor_id="x", process=Process.current(), renewed_at=0)
        )
        look = StatusReader(store, patient=True).look()
        assert claim(store, "gone", key, [], look) == path
        await submit(manager, "waits")
        await asyncio.sleep(0)
        assert runner.started["load"] == 1
        store.leases.delete("gone")
        await runner.end("load")
        await manager.queries.wait_output("waits")
        assert runner.started["load"] == 2
    assert claims(bytes_) == []


def claim(
    store: WorkflowStore, manager_id: str, key: str, objects: list[CachedObject], look: StatusLook
) -> str:
    """The key of the claim; ``""`` where another manager has one."""
    put = CacheClaims(store, manager_id).claim_put(key, objects, look)
    return put.key if put is not None and store.bytes.put_if_absent(put.key, put.data) else ""


def test_of_two_that_claim_a_result_one_gets_it():
    store = WorkflowStore(MemoryStore())
    for manager_id in ("a", "b"):
        store.leases.write(
            Lease(manager_id=manager_id, actor_id="x", process=Process.current(), renewed_at=0)
        )
    look = StatusReader(store, patient=True).look()
    entries, claims_of_a = CacheEntries(store), CacheClaims(store, "a")
    objects = entries.list_of("k")
    first = claim(store, "a", "k", objects, look)
    assert first
    assert claim(store, "b", "k", objects, look) == ""
    assert claim(store, "b", "k", entries.list_of("k"), look) == ""
    claims_of_a.give_back([first])
    assert claim(store, "b", "k", entries.list_of("k"), look) == first
    # The claim after a dead manager's gets the next number: of two, again, one.
    store.leases.delete("b")
    late = StatusReader(store, patient=True).look()
    objects = entries.list_of("k")
    second = claim(store, "a", "k", objects, late)
    assert second not in ("", first)
    assert claim(store, "c", "k", objects, late) == ""
    claims_of_a.give_back([second])
    assert entries.list_of("k") == []
