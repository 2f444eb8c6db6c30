"""Whoever dies between any two writes of a change, all who read the storage agree with its statuses afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from agreement import Reader
from faulty import FaultyStore, Killed
from sample_records import status_record, store_run
from test_submission_reader import GONE, GRAPH, INTERVALS, InstantRunner, manager_on, until

from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.records import StartOptions
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.offline.fork import fork
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.left_logs import LeftLogs
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

pytestmark = [pytest.mark.timeout(240), pytest.mark.invariant(4)]

RARE = replace(INTERVALS, index_s=1e9, left_logs_s=1e9, changes_s=0.0)
BUSY = replace(RARE, index_s=0.0, left_logs_s=0.002)
IDS = ("w", "other", "forked")


def copied(store: ByteStore) -> MemoryStore:
    copy = MemoryStore()
    for entry in store.list("v1"):
        copy.put(entry.key, store.get(entry.key))
    return copy


def stored(*runs: tuple[str, Status], has_index: bool) -> MemoryStore:
    """A storage with these workflows.

    :param has_index: as managers leave it. Else there are only change logs.
    """
    store = MemoryStore()
    opened = WorkflowStore(store)
    if has_index:
        rebuild(opened, now=1.0)
    for workflow_id, status in runs:
        record = status_record(status, workflow_id, manager_id="before", created_at=1.0)
        store_run(opened, record, Graph.from_bytes(GRAPH))
    if has_index:
        LeftLogs(opened).take_over(2.0)
    return store


async def is_stored(store: ByteStore, *statuses: Status | None, workflow_id: str = "w") -> None:
    def stands() -> bool:
        latest = WorkflowStore(store).latest_status(workflow_id)
        return (latest and latest.status) in statuses

    await until(stands)
    await asyncio.sleep(0.02)  # what comes after it


# ---- what is done by a manager


Act = Callable[[Manager, ByteStore], Awaitable[None]]


async def start(manager: Manager, store: ByteStore) -> None:
    await manager.submit("w", GRAPH, user_metadata={})


async def start_and_end(manager: Manager, store: ByteStore) -> None:
    await start(manager, store)
    await is_stored(store, Status.SUCCESSFUL)


async def wait_and_run(manager: Manager, store: ByteStore) -> None:
    await manager.submit("other", GRAPH, user_metadata={})
    await start(manager, store)
    await is_stored(store, Status.PENDING)
    await manager.cancel("other")
    await is_stored(store, Status.RUNNING)


async def resume(manager: Manager, store: ByteStore) -> None:
    await manager.resume("w")
    await is_stored(store, Status.SUCCESSFUL)


async def start_over(manager: Manager, store: ByteStore) -> None:
    options = StartOptions(on_existing="restart")
    await manager.submit("w", GRAPH, user_metadata={}, options=options)
    await is_stored(store, Status.SUCCESSFUL)


async def cancel(manager: Manager, store: ByteStore) -> None:
    await manager.cancel("w")


async def cancel_a_run(manager: Manager, store: ByteStore) -> None:
    await start(manager, store)
    await is_stored(store, Status.RUNNING)
    await manager.cancel("w")


async def delete(manager: Manager, store: ByteStore) -> None:
    await manager.inactive.delete("w")


async def delete_and_start(manager: Manager, store: ByteStore) -> None:
    await manager.inactive.delete("w")
    await start_and_end(manager, store)


async def manager_prunes(manager: Manager, store: ByteStore) -> None:
    await manager.inactive.prune(
        older_than_s=0.0, statuses=["SUCCESSFUL", "FAILED"], keep_outputs=False, dry_run=False
    )


MANAGERS: dict[str, tuple[Act, Status | None, bool]] = {
    "start": (start, None, True),
    "start and end": (start_and_end, None, False),
    "pending, then running": (wait_and_run, None, True),
    "resume": (resume, Status.FAILED, False),
    "start over": (start_over, Status.SUCCESSFUL, False),
    "cancel": (cancel, Status.RESUMABLE, False),
    "cancel a run": (cancel_a_run, None, True),
    "delete": (delete, Status.SUCCESSFUL, False),
    "delete and start anew": (delete_and_start, Status.SUCCESSFUL, False),
    "prune": (manager_prunes, Status.FAILED, False),
}


async def die_at(store: ByteStore, at: int, how: str, act: Act, **given) -> bool:
    """Have a manager act, and die at one of its writes; False if it survives."""
    faulty = FaultyStore(store, at=at, how=how)
    manager = manager_on(faulty, "first", process=GONE, **given)

    async def all_of_it() -> None:
        await manager.start()
        await act(manager, store)
        await asyncio.sleep(0.02)

    acting, died = asyncio.ensure_future(all_of_it()), asyncio.wrap_future(faulty.died)
    await asyncio.wait([acting, died], return_when=asyncio.FIRST_COMPLETED)
    if died.done():
        acting.cancel()
        return True
    await acting
    faulty.die()
    return False


def die(store: ByteStore, at: int, how: str, act: Act, **given) -> bool:
    """As a process: what it has begun ends with it."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: None)  # tasks that end by Killed
    with contextlib.closing(loop):
        try:
            return loop.run_until_complete(die_at(store, at, how, act, **given))
        finally:
            for _ in range(50):
                if not (left := asyncio.all_tasks(loop)):
                    break
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(left, timeout=0.1))


def agree_afterwards(store: ByteStore, reader: Reader) -> None:
    """Without a manager, when time has passed, and when others have taken over what was left."""
    reader.check()
    reader.now += 20.0
    reader.check()
    elapsed = [0.0]
    left = LeftLogs(WorkflowStore(store), elapsed=lambda: elapsed[0])
    for number in range(6):
        left.take_over(3.0 + number)
        if number == 1 and WorkflowStore(store).index.load() is None:
            rebuild(WorkflowStore(store), now=4.0)
        elapsed[0] += 1000.0
        reader.now += 15.0
        reader.look()
    reader.check()
    assert [*WorkflowStore(store).changes.writers()] == []
    asyncio.run(a_second_one(store, reader))


async def a_second_one(store: ByteStore, reader: Reader) -> None:
    """Another manager comes, and resumes what can be."""
    manager = manager_on(store, "second", actor_id="another", intervals=BUSY)
    await manager.start()
    try:
        before = await asyncio.to_thread(reader.check)
        for workflow_id, status in before.items():
            if status is Status.RESUMABLE:
                await manager.resume(workflow_id)
                # Lists have an end a moment after its status, and at once when the manager tells of it.
                ended = await manager.queries.wait_output(workflow_id)
                assert ended.status is Status.SUCCESSFUL
        reader.now += 15.0
        await asyncio.to_thread(reader.check)
    finally:
        await manager.close()
    reader.now += 15.0
    reader.check()


@pytest.mark.parametrize(
    ("how", "has_index", "intervals"),
    [
        ("before", True, RARE),
        ("after", True, RARE),
        ("before", False, RARE),
        ("before", True, BUSY),
    ],
    ids=["before", "after", "without an index", "while it keeps the index"],
)
@pytest.mark.parametrize("name", MANAGERS)
def test_all_agree_after_a_manager_was_killed_at_any_write(
    name: str, how: str, has_index: bool, intervals: Intervals
) -> None:
    act, before, is_endless = MANAGERS[name]
    begun = stored(*([("w", before)] if before else []), ("x", Status.FAILED), has_index=has_index)
    for at in range(200):
        store = copied(begun)
        reader = Reader(store, watched=(*IDS, "x"))
        runner = InstantRunner(is_endless=is_endless)
        given = {"runner": runner, "limits": Limits(max_running=1), "intervals": intervals}
        has_died = die(store, at, how, act, **given)
        try:
            agree_afterwards(store, reader)
        except AssertionError as exc:
            exc.add_note(f"killed {how} write {at}")
            raise
        if not has_died:
            return
    pytest.fail("It never comes to its end.")


# ---- what is done by a visitor


def visitor_cancels(store: WorkflowStore) -> None:
    lifecycle.cancel(store, "w", now=5.0)


def visitor_deletes(store: WorkflowStore) -> None:
    found = StatusReader(store).read("w")
    assert found is not None
    lifecycle.delete(store, found, manager_id="visitor-1", now=5.0)


def visitor_forks(store: WorkflowStore) -> None:
    fork(store, "w", "forked", from_task="", now=5.0)


def visitor_prunes(store: WorkflowStore) -> None:
    prune(store, older_than_s=0.0, now=5.0, statuses=["FAILED"])


def visitor_forgets(store: WorkflowStore) -> None:
    found = StatusReader(store).read("w")
    assert found is not None
    lifecycle.forget_from(store, found, "a", manager_id="visitor-1", now=5.0)


@pytest.mark.parametrize("has_index", [True, False], ids=["index", "no index"])
@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize(
    "act", [visitor_cancels, visitor_deletes, visitor_forks, visitor_prunes, visitor_forgets]
)
def test_all_agree_after_a_visitor_was_killed_at_any_write(
    act: Callable[[WorkflowStore], None], how: str, has_index: bool
) -> None:
    runs = [("w", Status.FAILED), ("other", Status.FAILED), ("x", Status.RUNNING)]
    begun = stored(*runs, has_index=has_index)
    for at in range(200):
        store = copied(begun)
        reader = Reader(store, watched=(*IDS, "x"))
        faulty = FaultyStore(store, at=at, how=how)
        with contextlib.suppress(Killed):
            act(WorkflowStore(faulty))
        try:
            agree_afterwards(store, reader)
        except AssertionError as exc:
            exc.add_note(f"killed {how} write {at}")
            raise
        if not faulty.died.done():
            return
    pytest.fail("It never comes to its end.")
