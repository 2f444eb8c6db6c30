"""Tasks that clean up after a cancel."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from hand_runner import RETURNED, HandRunner, managing
from waiting import until

from airflow_provider_rayworkflow.workflow import options
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task, TaskOptions
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox, StopRequest


def graph(cleanup_s: float | None = 60.0) -> bytes:
    """``work`` and ``other`` for ``clean`` (after a cancel, too), ``told`` for failures, and ``end``."""
    tasks = [
        Task(name="work", function=0, arguments=0),
        Task(name="other", function=0, arguments=0),
        cleaning("clean", 0, 1, cleanup_s=cleanup_s),
        Task(name="told", function=0, arguments=0, upstream=(0,), options=ALL_DONE),
        Task(name="end", function=0, arguments=0, upstream=(2, 3)),
    ]
    return Graph(tasks=tasks, blobs=[b""]).to_bytes()


ALL_DONE = TaskOptions(when="all_done")


def cleaning(name: str, *upstream: int, cleanup_s: float | None) -> Task:
    how = replace(ALL_DONE, cleanup_s=cleanup_s)
    return Task(name=name, function=0, arguments=0, upstream=upstream, options=how)


def up(store: MemoryStore, runner: HandRunner, manager_id: str = "m", **given):
    return managing(store, runner, manager_id, intervals=Intervals(poll_s=0.01), **given)


async def begun(manager: Manager, runner: HandRunner, given: bytes) -> None:
    """The workflow runs: ``work`` is done and ``other`` under way."""
    await manager.submit("w", given, user_metadata={})
    await runner.end("work")
    await until(lambda: "other" in runner.errands and "told" in runner.errands)


def status(store: MemoryStore) -> WorkflowStatus:
    record = WorkflowStore(store).read_status("w")
    assert record is not None
    return record.status


def requests(store: MemoryStore) -> list[StopRequest]:
    return list(Mailbox(store).list_requests())


async def cleaning_up(manager: Manager, runner: HandRunner) -> asyncio.Task[None]:
    """A cancel whose cleanup has begun, and would go on for an hour."""
    await begun(manager, runner, graph(cleanup_s=3600))
    cancel = asyncio.create_task(manager.cancel("w"))
    await until(lambda: "clean" in runner.errands)
    return cancel


async def test_a_canceled_workflow_runs_its_cleanup_and_nothing_else_before_it_is_canceled():
    store, runner = MemoryStore(), HandRunner()

    async with up(store, runner) as manager:
        await begun(manager, runner, graph())
        cancel = asyncio.create_task(manager.cancel("w"))
        await until(lambda: "clean" in runner.errands)
        assert set(runner.errands) == {"clean"}
        taken = [one.inline for one in runner.errands["clean"].run.inputs]
        assert taken == [RETURNED.result.inline, b"null"]
        assert status(store) is WorkflowStatus.RUNNING
        await runner.end("clean")
        await cancel
        assert "clean" in WorkflowStore(store).read_checkpoints("w").records
    assert status(store) is WorkflowStatus.CANCELED
    assert "end" not in runner.started
    assert requests(store) == []


async def test_a_cleanup_that_does_not_end_is_stopped_when_its_time_is_over():
    store, runner = MemoryStore(), HandRunner()

    async with up(store, runner) as manager:
        await begun(manager, runner, graph(cleanup_s=0.05))
        await manager.cancel("w")
    assert status(store) is WorkflowStatus.CANCELED
    assert runner.started["clean"] == 1


@pytest.mark.parametrize("how", ["call", "request"])
async def test_a_second_cancel_stops_the_cleanup(how: str):
    store, runner = MemoryStore(), HandRunner()

    async with up(store, runner) as manager:
        first = await cleaning_up(manager, runner)
        if how == "call":
            await manager.cancel("w")
        else:
            later = StopRequest.by_anybody("w", 1, how="cancel", now=time.time())
            Mailbox(store).request_stop(later)
        async with asyncio.timeout(20):
            await first
        await until(lambda: requests(store) == [])
    assert status(store) is WorkflowStatus.CANCELED


async def test_a_suspend_runs_no_cleanup():
    store, runner = MemoryStore(), HandRunner()

    async with up(store, runner) as manager:
        await begun(manager, runner, graph())
        await manager.suspend("w")
    assert status(store) is WorkflowStatus.RESUMABLE
    assert "clean" not in runner.started


async def test_a_manager_that_is_closed_during_a_cleanup_leaves_a_canceled_workflow():
    store, runner = MemoryStore(), HandRunner()

    async with up(store, runner) as manager:
        cancel = await cleaning_up(manager, runner)
    await cancel
    assert status(store) is WorkflowStatus.CANCELED


async def test_a_workflow_whose_manager_dies_during_its_cleanup_is_canceled_by_another_one():
    store, runner = MemoryStore(), HandRunner()

    async with up(store, runner) as manager:
        cancel = await cleaning_up(manager, runner)
        await until(lambda: len(requests(store)) == 1)
        manager.fence()  # it writes nothing any more
        await asyncio.wait([cancel])
    assert status(store) is WorkflowStatus.RUNNING  # as it was written last
    later = time.time() + 2 * LEASE_TTL_S
    async with up(store, HandRunner(), "m2", clock=lambda: later) as other:
        await other.submit("x", graph(), user_metadata={})
        await until(lambda: status(store) is WorkflowStatus.CANCELED)
        await until(lambda: requests(store) == [])


def test_a_cleanup_time_is_for_tasks_that_run_when_all_is_done():
    with pytest.raises(ValueError, match="when="):
        options(cleanup_s=60)
    with pytest.raises(ValueError, match="more than 0"):
        options(when="all_done", cleanup_s=0)
    assert options(when="all_done", cleanup_s=60)
