"""A manager obeys stop requests that lie in the storage, and only those of the owner."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import hand_runner
import pytest
from hand_runner import HandRunner
from sample_records import claim_epoch, status_record
from waiting import until

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    IllegalTransitionError,
    WorkflowNotResumableError,
)
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import StartOptions, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline import lifecycle
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox, Owner, StopRequest

GRAPH = Graph(tasks=[Task(name="endless", function=0, arguments=0)], blobs=[b""]).to_bytes()
OWNER = Owner(workflow_id="w", token="try", submission_id="", since=0.0)
SUSPEND = StopRequest(workflow_id="w", token="try", how="suspend", requested_at=0.0)


class MoodyStore(MemoryStore):
    """Counts the looks for requests, and fails them while it is told to."""

    is_down = False
    looks = 0

    def list(self, folder: str) -> Any:
        if folder == "v1/requests":
            self.looks += 1
            if self.is_down:
                raise DataLoadError("The storage is down")
        return super().list(folder)


@pytest.fixture
def store() -> MoodyStore:
    return MoodyStore()


@pytest.fixture
def mailbox(store: MoodyStore) -> Mailbox:
    return Mailbox(store)


@asynccontextmanager
async def running(
    store: MoodyStore, manager_id: str = "m", *, workflow_id: str = "w"
) -> AsyncIterator[Manager]:
    """A manager with a workflow."""
    async with managing(store, manager_id) as manager:
        await manager.submit(workflow_id, GRAPH, user_metadata={})
        yield manager


def managing(store: MoodyStore, manager_id: str) -> AbstractAsyncContextManager[Manager]:
    """A manager whose tasks run until they are stopped."""
    intervals = Intervals(poll_s=0.01)
    return hand_runner.managing(store, HandRunner(), manager_id, intervals=intervals)


async def ended(manager: Manager, store: MoodyStore) -> StatusRecord:
    await manager.queries.wait_output("w")
    await until(lambda: not list(store.list("v1/requests")))
    record = WorkflowStore(store).read_status("w")
    assert record is not None
    return record


async def looked_again(store: MoodyStore) -> None:
    """Return when a manager has looked for requests three times more."""
    looks = store.looks
    await until(lambda: store.looks >= looks + 3)


async def dropped(mailbox: Mailbox) -> None:
    await until(lambda: not list(mailbox.list_requests()))


@pytest.mark.parametrize(
    ("how", "status"),
    [("suspend", WorkflowStatus.RESUMABLE), ("cancel", WorkflowStatus.CANCELED)],
)
async def test_a_request_of_the_owner_is_obeyed(store, mailbox, how, status):
    async with running(store) as manager:
        mailbox.take_over(OWNER)
        mailbox.request_stop(replace(SUSPEND, how=how))
        record = await ended(manager, store)
        assert (record.status, record.stopped_by) == (status, "try")


@pytest.mark.parametrize("owner", [None, replace(OWNER, token="later")])
async def test_a_request_of_a_try_that_is_not_the_owner_is_dropped(store, mailbox, owner):
    async with running(store) as manager:
        if owner is not None:
            mailbox.take_over(owner)
        mailbox.request_stop(SUSPEND)
        await dropped(mailbox)
        assert await manager.queries.get_status("w") is WorkflowStatus.RUNNING


async def test_a_request_that_came_before_the_workflow_is_obeyed_when_it_begins(store, mailbox):
    mailbox.take_over(OWNER)
    mailbox.request_stop(SUSPEND)
    async with running(store) as manager:
        record = await ended(manager, store)
        assert record.status is WorkflowStatus.RESUMABLE


async def test_a_stop_request_of_a_run_is_forgotten_by_the_next_one(store, mailbox):
    async with running(store) as manager:
        mailbox.take_over(OWNER)
        mailbox.request_stop(SUSPEND)
        assert (await ended(manager, store)).stopped_by == "try"
        await manager.resume("w")
        await manager.suspend("w")
        assert (await ended(manager, store)).stopped_by == ""


def cancel_by_a_person(base_epoch: int) -> StopRequest:
    return StopRequest.by_anybody("w", base_epoch, how="cancel", now=0.0)


async def test_a_person_may_cancel_a_workflow_of_an_owner(store, mailbox):
    async with running(store) as manager:
        mailbox.take_over(OWNER)
        mailbox.request_stop(cancel_by_a_person(1))
        assert (await ended(manager, store)).status is WorkflowStatus.CANCELED


async def test_a_person_may_suspend_a_workflow_of_an_owner(store, mailbox):
    async with running(store) as manager:
        mailbox.take_over(OWNER)
        lifecycle.suspend(WorkflowStore(store), "w", now=time.time())
        record = await ended(manager, store)
        assert (record.status, record.stopped_by) == ("RESUMABLE", "anybody")
        with pytest.raises(IllegalTransitionError):
            lifecycle.suspend(WorkflowStore(store), "w", now=time.time())


async def test_a_cancel_of_a_run_that_was_given_up_is_dropped(store, mailbox):
    async with running(store) as manager:
        await manager.suspend("w")
        await manager.submit(
            "w", GRAPH, user_metadata={}, options=StartOptions(on_existing="restart")
        )
        mailbox.request_stop(cancel_by_a_person(1))
        await dropped(mailbox)
        assert await manager.queries.get_status("w") is WorkflowStatus.RUNNING


@pytest.mark.parametrize(
    "request_",
    [replace(SUSPEND, how="cancel"), cancel_by_a_person(1)],
    ids=["of the owner", "of a person"],
)
async def test_a_cancel_that_came_while_no_manager_lived_is_obeyed_instead_of_a_resume(
    store, mailbox, request_
):
    mailbox.take_over(OWNER)
    async with running(store):
        pass  # the manager leaves it RESUMABLE
    mailbox.request_stop(request_)
    async with managing(store, "later") as later:
        with pytest.raises(WorkflowNotResumableError, match="It was canceled"):
            await later.resume("w")
        assert await later.queries.get_status("w") is WorkflowStatus.CANCELED
    assert list(mailbox.list_requests()) == []


async def test_a_cancel_of_an_earlier_owner_does_not_hinder_a_resume(store, mailbox):
    mailbox.take_over(OWNER)
    async with running(store):
        pass
    mailbox.request_stop(replace(SUSPEND, how="cancel"))
    mailbox.take_over(replace(OWNER, token="later"))
    async with managing(store, "later") as later:
        await later.resume("w")
        assert await later.queries.get_status("w") is WorkflowStatus.RUNNING


async def test_any_manager_cancels_what_a_dead_one_can_not(store, mailbox):
    mailbox.take_over(OWNER)
    async with running(store):
        pass
    mailbox.request_stop(replace(SUSPEND, how="cancel"))
    async with running(store, "other", workflow_id="another"):
        await dropped(mailbox)
    record = WorkflowStore(store).read_status("w")
    assert record is not None
    assert record.status is WorkflowStatus.CANCELED


async def test_requests_for_workflows_of_others_are_left_alone_until_they_are_old(store, mailbox):
    async with running(store):
        other = replace(SUSPEND, workflow_id="other", requested_at=time.time())
        old = replace(other, token="old", requested_at=time.time() - 90_000)
        mailbox.request_stop(old)
        mailbox.request_stop(other)
        await until(lambda: list(mailbox.list_requests()) == [other])


async def test_a_storage_that_fails_for_a_while_stops_nothing(store, mailbox):
    async with running(store) as manager:
        mailbox.take_over(OWNER)
        store.is_down = True
        mailbox.request_stop(SUSPEND)
        await looked_again(store)
        store.is_down = False
        assert (await ended(manager, store)).status is WorkflowStatus.RESUMABLE


async def test_the_storage_is_not_asked_while_the_manager_holds_nothing(store):
    async with running(store) as manager:
        await until(lambda: store.looks)
        await manager.suspend("w")
        looks = store.looks
        await asyncio.sleep(0.1)
        assert store.looks <= looks + 1  # one may have been under way


async def test_a_cancel_stays_for_the_manager_that_has_taken_the_workflow_over(store, mailbox):
    cancel = replace(SUSPEND, how="cancel", requested_at=time.time())
    async with running(store) as manager:
        mailbox.take_over(OWNER)
        # In one turn of the loop: the manager hears of the other one when it obeys.
        assert claim_epoch(WorkflowStore(store), after=1, manager_id="other")
        mailbox.request_stop(cancel)
        async with asyncio.timeout(10):
            await manager.queries.wait_output("w")
        await manager.submit("v", GRAPH, user_metadata={})  # else it does not look
        await looked_again(store)
        assert list(mailbox.list_requests()) == [cancel]


async def test_a_cancel_that_comes_while_the_workflow_is_being_suspended_is_not_forgotten(
    store, mailbox
):
    cancel = replace(SUSPEND, how="cancel", requested_at=time.time())
    async with running(store) as manager:
        mailbox.take_over(OWNER)
        suspended = asyncio.create_task(manager.suspend("w"))
        await asyncio.sleep(0)  # it has begun, and waits for the task to stop
        mailbox.request_stop(cancel)
        await manager._requests.look()
        await suspended
        await manager.submit("v", GRAPH, user_metadata={})  # else it does not look
        await looked_again(store)
        assert list(mailbox.list_requests()) == [cancel]


async def test_a_cancel_of_what_has_been_deleted_is_dropped(store, mailbox):
    async with running(store, workflow_id="v"):
        record = status_record(WorkflowStatus.RESUMABLE, manager_id="gone")
        WorkflowStore(store).write_status(record)  # and no claim
        mailbox.request_stop(replace(cancel_by_a_person(1), requested_at=time.time() - 60))
        await dropped(mailbox)
