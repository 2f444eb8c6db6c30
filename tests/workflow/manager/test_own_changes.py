"""A manager's change log says that a status may change before it does, and how it was written soon after."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from noting_store import NotingStore
from sample_records import status_record
from test_submission_reader import GRAPH, INTERVALS, InstantRunner, managing, until

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError, StorageError
from airflow_provider_rayworkflow.workflow.execution.thread_pool import ThreadPool
from airflow_provider_rayworkflow.workflow.execution.writes import Writes
from airflow_provider_rayworkflow.workflow.manager.own_changes import (
    MOST_ROWS_KEPT,
    ROWS_KEPT_S,
    OwnChanges,
)
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLog
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import Tenure
from airflow_provider_rayworkflow.workflow.storage.listing import LISTED
from airflow_provider_rayworkflow.workflow.storage.overview import Overview

pytestmark = pytest.mark.timeout(60)

LOG = keys.change_log_key("m")


class LogStore(NotingStore):
    """Holds up, or refuses, the writes of the log while a test wants that.

    :ivar is_full: nothing of the log can be written.
    :ivar gate: a write of the log waits for it.
    :ivar refused: how many writes were refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False
        self.gate = threading.Event()
        self.gate.set()
        self.refused = 0

    def put(self, key: str, data: Data) -> None:
        if key == LOG:
            assert self.gate.wait(30)
            if self.is_full:
                self.refused += 1
                raise DataSaveError("full")
        super().put(key, data)

    @property
    def writes(self) -> int:
        return self.count("put", LOG)

    def read(self) -> ChangeLog:
        return WorkflowStore(self).changes.read("m")

    def rows(self) -> dict[str, Status | None]:
        """The log's rows; None for a look row."""
        return {one.segment: one.row and one.row.status for one in self.read().changes}


@asynccontextmanager
async def opened(
    store: LogStore | None = None, **given: Any
) -> AsyncIterator[tuple[LogStore, OwnChanges]]:
    store = store or LogStore()
    with ThreadPool(4) as threads:
        writes = Writes(store, threads)
        changes = OwnChanges(WorkflowStore(store), writes, manager_id="m", **given)
        await changes.open(0)
        yield store, changes
        store.gate.set()
        store.is_full = False
        await changes.close()


def row(segment: str = "w", status: Status = Status.RUNNING, **fields: Any) -> IndexRow:
    return IndexRow.of(status_record(status, segment, **fields), segment)


async def test_a_log_is_there_before_anything_has_changed():
    async with opened() as (store, _):
        found = store.read()
        assert (found.changes, found.seq, found.is_done) == ((), 0, False)


async def test_a_look_row_is_durable_when_the_announcement_is_and_the_status_follows():
    async with opened() as (store, changes):
        await changes.begin("w")
        assert store.rows() == {"w": None}
        changes.note(row(), has_begun=True)
        changes.end("w")
        await until(lambda: store.rows() == {"w": Status.RUNNING})


async def test_a_run_that_ends_soon_has_its_start_and_its_end_in_one_write_after_the_announcement():
    async with opened(gather_s=5.0) as (store, changes):
        before = store.writes
        await changes.begin("w")
        changes.note_start(row())
        changes.end("w")
        await changes.note_end(row(status=Status.SUCCESSFUL, number=1))
        assert store.rows() == {"w": Status.SUCCESSFUL}
        assert store.writes - before == 2


async def test_a_start_comes_into_the_log_by_itself_though_nothing_else_changes():
    async with opened() as (store, changes):
        await changes.begin("w")
        changes.note_start(row())
        changes.end("w")
        assert store.rows() == {"w": None}
        await until(lambda: store.rows() == {"w": Status.RUNNING})


async def test_several_announcements_share_a_write_and_those_that_come_meanwhile_share_the_next():
    async with opened() as (store, changes):
        before = store.writes
        store.gate.clear()
        first = changes.begin("first")
        await asyncio.sleep(0.05)
        others = [changes.begin(f"w{number}") for number in range(50)]
        store.gate.set()
        await asyncio.gather(first, *others)
        assert store.writes - before == 2
        assert len(store.rows()) == 51


async def test_an_announcement_that_can_not_be_written_is_an_error_for_those_who_wait_and_comes_later():
    async with opened() as (store, changes):
        store.is_full = True
        waiting = [changes.begin("v"), changes.begin("w")]
        for one in waiting:
            with pytest.raises(StorageError, match="full"):
                await one
        store.is_full = False
        await changes.begin("x")
        assert store.rows() == {"v": None, "w": None, "x": None}


async def test_a_row_whose_write_has_failed_is_written_again():
    async with opened() as (store, changes):
        store.is_full = True
        changes.note(row())
        await until(lambda: store.refused)
        changes.note(row("v", Status.FAILED))
        store.is_full = False
        await until(lambda: store.rows() == {"w": Status.RUNNING, "v": Status.FAILED})


async def test_a_caller_that_gives_up_waiting_keeps_no_other_from_its_answer():
    async with opened() as (store, changes):
        store.gate.clear()
        first, second = changes.begin("v"), changes.begin("w")
        first.cancel()
        store.gate.set()
        await second
        assert store.rows() == {"v": None, "w": None}


async def test_those_who_wait_hear_of_a_write_that_ends_with_the_process():
    class Ended(BaseException):
        pass

    class Writing(Writes):
        """Writes that end by no :class:`Exception`."""

        is_ended = False

        def put(self, *args: Any, **given: Any) -> asyncio.Future[bool]:
            if self.is_ended:
                failed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
                failed.set_exception(Ended())
                return failed
            return super().put(*args, **given)

    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
    store = LogStore()
    with ThreadPool(1) as threads:
        writes = Writing(store, threads)
        changes = OwnChanges(WorkflowStore(store), writes, manager_id="m")
        await changes.open(0)
        writes.is_ended = True
        for _ in range(2):  # also one that comes after it
            with pytest.raises(Ended):
                async with asyncio.timeout(10):
                    await changes.begin("w")


# ---- what stands in the index


def take(changes: OwnChanges, version: int = 1) -> None:
    """Let the index have what it may, as its keeper does."""
    changes.took(taken(changes), before=version, after=version)


def taken(changes: OwnChanges) -> list[Any]:
    return [one for one in changes.untaken if one.row or not changes.is_open(one.segment)]


async def test_what_stands_in_the_index_is_no_news_and_stays_in_the_log_for_those_who_watch():
    async with opened() as (store, changes):
        changes.note(row("a"))
        changes.note(row("b"))
        take(changes, 7)
        assert changes.untaken == []
        await until(lambda: store.read().taken == 2)
        found = store.read()
        assert (found.version, found.untaken) == (7, [])
        assert store.rows() == {"a": Status.RUNNING, "b": Status.RUNNING}


async def test_a_workflow_whose_status_is_about_to_be_written_stays_news():
    async with opened() as (store, changes):
        changes.note(row("a"))
        await changes.begin("w")
        changes.note(row("b"))
        take(changes)
        assert [one.segment for one in changes.untaken] == ["w"]
        await until(lambda: store.read().taken == 3)
        assert [one.segment for one in store.read().untaken] == ["w"]


async def test_open_announcements_keep_later_changes_from_no_index():
    """One workflow that starts for ever, and a thousand others."""
    async with opened() as (_, changes):
        await changes.begin("slow")
        for number in range(1000):
            changes.note(row(f"w{number}"))
            take(changes)
        assert [one.segment for one in changes.untaken] == ["slow"]
        changes.note(row("slow"), has_begun=True)
        changes.end("slow")
        take(changes)
        assert changes.untaken == []


async def test_an_announcement_that_comes_while_the_one_before_goes_into_the_index_is_not_lost():
    """A start fails, since another manager was first, and is tried again."""
    async with opened() as (store, changes):
        await changes.begin("w")
        changes.end("w")
        going = taken(changes)
        assert [one.segment for one in going] == ["w"]
        await changes.begin("w")
        changes.took(going, before=1, after=1)
        assert [one.segment for one in changes.untaken] == ["w"]
        await until(lambda: store.read().taken == 1)
        assert [one.segment for one in store.read().untaken] == ["w"]


async def test_an_announcement_without_a_status_leaves_the_log_with_the_next_take_over():
    async with opened() as (store, changes):
        await changes.begin("w")
        changes.end("w")
        take(changes)
        await until(lambda: store.rows() == {})
        assert store.read().forgotten == store.read().taken == 1


async def test_rows_of_long_ago_are_forgotten_and_the_log_says_so():
    store, now = LogStore(), [0.0]
    async with opened(store, clock=lambda: now[0]) as (_, changes):
        changes.note(row("old"))
        now[0] = ROWS_KEPT_S
        changes.note(row("new"))
        take(changes)
        await until(lambda: store.read().taken == 2)
        assert store.rows() == {"new": Status.RUNNING}
        assert store.read().forgotten == 1


async def test_a_log_keeps_no_more_than_so_many_rows_that_stand_in_the_index():
    async with opened() as (store, changes):
        for number in range(MOST_ROWS_KEPT + 50):
            changes.note(row(f"w{number}"))
        take(changes)
        await until(lambda: store.read().taken == MOST_ROWS_KEPT + 50)
        found = store.read()
        assert len(found.changes) == MOST_ROWS_KEPT
        assert found.forgotten == 50


async def test_many_changes_call_for_the_index_at_once():
    async with opened() as (_, changes):
        for number in range(399):
            changes.note(row(f"w{number}"))
        assert not changes.is_full.is_set()
        changes.note(row("w"))
        assert changes.is_full.is_set()


# ---- two callers, threads, and the end


async def test_while_another_call_is_about_to_write_the_look_row_stays():
    async with opened() as (store, changes):
        await asyncio.gather(changes.begin("w"), changes.begin("w"))
        changes.note(row(), has_begun=True)
        changes.end("w")
        await changes.begin("v")
        assert store.rows()["w"] is None
        changes.note(row(status=Status.FAILED, number=1), has_begun=True)
        changes.end("w")
        await until(lambda: store.rows()["w"] is Status.FAILED)


async def test_a_run_that_ends_while_a_deletion_is_under_way_leaves_the_look_row():
    async with opened() as (store, changes):
        await changes.begin("w")
        changes.note(row(status=Status.SUCCESSFUL, number=1))
        await changes.begin("v")
        assert store.rows()["w"] is None


async def test_threads_note_what_they_change_and_parts_of_an_action_cost_no_write_each():
    async with opened() as (store, changes):
        segments = [f"w{number}" for number in range(100)]

        def prune() -> None:
            with changes.changing(segments):
                assert set(store.rows().values()) == {None}
                for segment in segments:
                    with changes.changing([segment]):
                        changes.wrote(row(segment, Status.NONE))

        before = store.writes
        await asyncio.to_thread(prune)
        await until(lambda: set(store.rows().values()) == {Status.NONE})
        assert store.writes - before <= 5
        assert not any(map(changes.is_open, segments))


async def test_a_part_of_an_action_in_a_thread_that_goes_on_in_its_context_is_not_announced_again():
    async with opened() as (store, changes):

        def part(segment: str) -> None:
            with changes.changing([segment]):
                changes.wrote(row(segment, Status.NONE))

        def act() -> None:
            with changes.changing(["w", "v"]):
                writes = store.writes
                store.gate.clear()
                part_of_it = contextvars.copy_context()
                with ThreadPoolExecutor(1) as threads:
                    # It would wait for the log otherwise.
                    threads.submit(part_of_it.run, part, "w").result(timeout=30)
                assert store.writes == writes
                store.gate.set()

        await asyncio.to_thread(act)
        assert not changes.is_open("w")


async def test_a_part_of_an_action_that_comes_after_its_row_is_announced_again():
    async with opened() as (store, changes):

        def act() -> None:
            with changes.changing(["w"]):
                changes.wrote(row())
                with changes.changing(["w"]):
                    assert store.rows() == {"w": None}

        await asyncio.to_thread(act)
        assert not changes.is_open("w")


async def test_a_thread_that_fails_leaves_nothing_open():
    async with opened() as (store, changes):

        def fail() -> None:
            with changes.changing(["w"]):
                raise ValueError("no")

        def is_refused() -> None:
            with changes.changing(["v"]):
                raise AssertionError("the body")

        with pytest.raises(ValueError, match="no"):
            await asyncio.to_thread(fail)
        store.is_full = True
        with pytest.raises(StorageError):
            await asyncio.to_thread(is_refused)
        assert not changes.is_open("w")
        assert not changes.is_open("v")


async def test_a_call_for_threads_in_the_loop_itself_is_an_error_and_no_deadlock():
    async with opened() as (_, changes):
        with pytest.raises(RuntimeError, match="in a thread"), changes.changing(["w"]):
            pass
        with pytest.raises(RuntimeError, match="in a thread"):
            changes.wrote(row())


def test_a_thread_that_changes_something_when_the_manager_has_ended_does_not_hang():
    begun, may_go_on = threading.Event(), threading.Event()
    left: list[OwnChanges] = []

    def act() -> None:
        with left[0].changing(["w"]):
            begun.set()
            assert may_go_on.wait(30)

    async def check(pool: ThreadPoolExecutor) -> Any:
        store = LogStore()
        with ThreadPool(1) as threads:
            changes = OwnChanges(WorkflowStore(store), Writes(store, threads), manager_id="m")
            await changes.open(0)
            left.append(changes)
            acting = pool.submit(act)
            await asyncio.to_thread(begun.wait, 30)
        return acting

    with ThreadPoolExecutor() as pool:
        acting = asyncio.run(check(pool))
        may_go_on.set()
        with pytest.raises(RuntimeError):
            acting.result(timeout=30)


async def test_a_log_is_done_when_what_has_begun_is():
    store = LogStore()
    with ThreadPool(2) as threads:
        changes = OwnChanges(WorkflowStore(store), Writes(store, threads), manager_id="m")
        await changes.open(0)
        await changes.begin("w")
        await changes.close()
        assert not store.read().is_done
        changes.note(row(status=Status.CANCELED), has_begun=True)
        changes.end("w")
        await until(lambda: store.read().is_done)
        assert store.rows() == {"w": Status.CANCELED}


async def test_a_manager_whose_log_can_not_be_written_any_more_ends_and_gives_its_lease_back():
    store = LogStore()
    async with managing(store, runner=InstantRunner(is_endless=True)) as manager:
        await manager.submit("w", GRAPH, user_metadata={})
        await until(lambda: Status.RUNNING in store.rows().values())
        store.is_full = True
    assert store.refused
    assert WorkflowStore(store).leases.list_names() == []
    # What the log says is not done: others read the statuses.
    assert not store.read().is_done
    found = Overview(WorkflowStore(store)).find(LISTED)
    assert [(one.workflow_id, one.status) for one in found] == [("w", Status.RESUMABLE)]


async def test_who_waits_for_an_end_finds_it_in_the_lists_of_other_processes_at_once():
    store = LogStore()
    rebuild(WorkflowStore(store), now=1.0)
    # What no caller waits for is written a minute later.
    late = replace(INTERVALS, changes_s=60.0)
    endless = InstantRunner(is_endless=True)
    async with managing(store, intervals=late, runner=endless) as manager:
        await manager.submit("w", GRAPH, user_metadata={})
        await manager.submit("other", GRAPH, user_metadata={})
        assert store.rows()["w"] is Status.RUNNING
        await manager.cancel("w")
        overview = await asyncio.to_thread(Overview, WorkflowStore(store))
        found = await asyncio.to_thread(lambda: [*overview.find({Status.CANCELED})])
        assert [one.workflow_id for one in found] == ["w"]


async def test_an_announcement_that_ends_without_a_status_stands_there_once_more():
    """Its log may have been taken for a dead manager's and deleted, while the process stood still."""
    async with opened() as (store, changes):
        await changes.begin("w")
        store.delete([LOG])
        changes.end("w")
        await until(lambda: store.count("put", LOG) == 3)
        assert store.rows() == {"w": None}


# ---- what it costs


@pytest.mark.parametrize(("runs", "most"), [(1, 5), (100, 20)])
async def test_a_run_costs_few_writes_of_the_log_and_a_burst_hardly_more(runs: int, most: int):
    """A start and an end each; what comes at the same time is written together."""

    store = NotingStore()
    async with managing(store) as manager:
        before = store.count("put", "v1/changes/")
        names = [f"w{number}" for number in range(runs)]
        await asyncio.gather(*(manager.submit(one, GRAPH, user_metadata={}) for one in names))
        logs = WorkflowStore(store).changes
        await until(
            lambda: (
                [one.row and one.row.status for one in logs.read("m").changes]
                == [Status.SUCCESSFUL] * runs
            )
        )
        assert store.count("put", "v1/changes/") - before <= most


async def test_more_changes_in_threads_than_a_manager_has_threads_come_to_their_end():
    """Each of these threads waits until its announcement is written."""

    known = Registry(WorkflowStore(MemoryStore()), manager_id="m", clock=time.time, tenure=Tenure())
    await known.changes.open(0)

    def change(number: int) -> int:
        with known.store.notes.changing([f"w{number}"]):
            return number

    numbers = range(300)
    async with asyncio.timeout(60):
        done = await asyncio.gather(*(known.in_thread(change, number) for number in numbers))
    assert done == [*numbers]
