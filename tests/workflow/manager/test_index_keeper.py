"""A manager keeps the index: its own changes, what others have left, and an index that is lost or damaged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

from agreement import check_lists
from change_log_rows import LogWriter
from noting_store import NotingStore
from sample_records import status_record
from test_submission_reader import GRAPH, INTERVALS, managing, until

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, DataLoadError
from airflow_provider_rayworkflow.workflow.manager.index_keeper import IndexKeeper
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus as Status
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.byte_store import Entry
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S, Tenure
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.status_watch import StatusWatch

NOW_AND_THEN = replace(INTERVALS, index_s=0.05, left_logs_s=0.01, changes_s=0.0)
RARELY = replace(INTERVALS, index_s=1e9, left_logs_s=0.01, changes_s=0.0)
LOG = keys.change_log_key("m")


def indexed(store: NotingStore, segment: str = "w") -> Status | None:
    """What the index itself has."""
    try:
        tree = WorkflowStore(store).index.load()
    except CorruptedDataError:
        return None
    value = tree.get(f"i/{segment}") if tree else None
    return value and Status(value["status"])


async def ran(store: NotingStore, **given: object) -> None:
    async with managing(store, **given) as manager:
        await manager.submit("w", GRAPH, user_metadata={})
        await until(lambda: indexed(store) is Status.SUCCESSFUL)


async def test_what_a_manager_changes_comes_into_the_index_now_and_then():
    await ran(NotingStore(), intervals=NOW_AND_THEN)


async def test_an_index_that_is_damaged_is_made_anew_and_lists_are_right_meanwhile():
    store = NotingStore()
    WorkflowStore(store).write_status(status_record(Status.FAILED, "old", manager_id="x"))
    async with managing(store, intervals=RARELY) as manager:
        await until(lambda: indexed(store, "old"))
        for entry in list(store.list("v1/index")):
            store.put(entry.key, b"torn")
        await manager.submit("w", GRAPH, user_metadata={})
        await until(lambda: _status(store) is Status.SUCCESSFUL)
        there = {"old": Status.FAILED, "w": Status.SUCCESSFUL}
        await asyncio.to_thread(check_lists, WorkflowStore(store), there)
    async with managing(store, "n", intervals=NOW_AND_THEN):
        await until(lambda: indexed(store) is Status.SUCCESSFUL)
        await asyncio.to_thread(check_lists, WorkflowStore(store), there)


def _status(store: NotingStore) -> Status | None:
    latest = WorkflowStore(store).latest_status("w")
    return latest and latest.status


async def test_a_manager_whose_log_was_deleted_writes_it_again():
    """Another one has taken it for left, as it came long before its lease."""

    store = NotingStore()
    async with managing(store, intervals=RARELY):
        await until(lambda: indexed(store, "x") is None)
        store.delete([LOG])
        await until(lambda: "m" in WorkflowStore(store).changes.writers())


async def test_a_manager_whose_log_was_damaged_writes_it_again():
    store = NotingStore()
    async with managing(store, intervals=NOW_AND_THEN):
        store.put(LOG, b"torn")
        await until(lambda: store.get(LOG) != b"torn")
        check_lists(WorkflowStore(store), {})


async def test_a_manager_without_a_log_is_waited_for_with_a_listing_of_all(caplog):
    store = NotingStore()
    async with managing(store, intervals=replace(RARELY, left_logs_s=1e9)) as manager:
        await manager.submit("w", GRAPH, user_metadata={})
        await until(lambda: indexed(store, "none") is None and _status(store))
        await until(lambda: _status(store) is Status.SUCCESSFUL)
        await asyncio.sleep(0.05)
        store.delete([LOG])
        check_lists(WorkflowStore(store), {"w": Status.SUCCESSFUL})
    assert "Manager m has no change log: all statuses are listed" in caplog.text


async def test_a_keeper_whose_work_fails_tries_it_again_and_not_at_once():
    class Broken(NotingStore):
        """Its statuses can't be listed, so that no index can be made."""

        is_broken = True
        tries = 0

        def list(self, folder: str) -> Iterator[Entry]:
            if folder == keys.STATUSES and self.is_broken:
                self.tries += 1
                raise DataLoadError("down")
            return super().list(folder)

    store = Broken()
    slow = replace(RARELY, index_s=0.0, left_logs_s=0.3)
    async with managing(store, intervals=slow) as manager:
        await until(lambda: store.tries == 1)
        manager._known.changes.is_full.set()  # much has changed
        await asyncio.sleep(0.05)
        assert store.tries == 1
        store.is_broken = False
        await until(lambda: WorkflowStore(store).index.load())


async def test_an_idle_manager_writes_nothing_but_its_log_now_and_then():
    store = NotingStore()
    async with managing(store, intervals=RARELY):
        await until(lambda: WorkflowStore(store).index.load())
        await asyncio.sleep(0.1)
        store.calls.clear()
        await asyncio.sleep(0.2)
        assert {call for call, _ in store.calls} == {"list"}


async def test_a_keeper_that_is_cancelled_just_as_it_gets_work_ends():
    known = Registry(
        WorkflowStore(NotingStore()),
        manager_id="m",
        clock=time.time,
        tenure=Tenure(LEASE_TTL_S, time.monotonic),
    )
    await known.changes.open(0)
    known.tenure.extend(time.monotonic())
    keeping = asyncio.create_task(IndexKeeper(known).watch())
    await until(lambda: known.changes.version and not known.changes.is_full.is_set())
    await asyncio.sleep(0.05)  # then it waits for the next change
    known.changes.is_full.set()
    keeping.cancel()
    done, _ = await asyncio.wait([keeping], timeout=5)
    assert done == {keeping}
    assert keeping.cancelled()
    known.threads.shutdown()


async def test_those_who_watch_hear_of_a_visit_whose_log_they_did_not_see():
    store = NotingStore()
    opened = WorkflowStore(store)
    rebuild(opened, now=1.0)
    opened.write_status(status_record(Status.FAILED, manager_id="visitor"))
    async with managing(store, intervals=RARELY):
        watch = StatusWatch(StatusReader(opened), check_s=float("inf"))
        await until(lambda: indexed(store) is Status.FAILED)
        assert watch.look(["w"])["w"][0] is Status.FAILED
        with opened.notes.changing(["w"]):
            opened.write_status(status_record(Status.CANCELED, epoch=2, manager_id="visitor"))
        await until(lambda: set(opened.changes.writers()) == {"m"})
        assert watch.look(["w"])["w"][0] is Status.CANCELED


async def test_a_closed_log_of_a_manager_that_was_killed_while_it_closed_is_left_to_the_next_one():
    store = NotingStore()
    log = LogWriter(WorkflowStore(store), "before")
    record = status_record(Status.SUCCESSFUL, number=1, manager_id="before")
    WorkflowStore(store).write_status(record)
    log.note(record)
    log.flush(is_done=True)
    async with managing(store, intervals=RARELY):
        await until(lambda: indexed(store) is Status.SUCCESSFUL)
        await until(lambda: set(WorkflowStore(store).changes.writers()) == {"m"})
