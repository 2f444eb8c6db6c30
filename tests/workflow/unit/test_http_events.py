"""HTTP events in the manager: stored, given out, acknowledged."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowEventHandleError
from airflow_provider_rayworkflow.workflow.http_events import HttpEvents
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.memory import MemoryStore

AT_ONCE = 0.0
LATE = 60.0


@pytest.fixture
def store():
    return WorkflowStore(MemoryStore())


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def events(store, threads):
    return HttpEvents(store, threads)


def fates(store):
    return {event.payload: event.is_committed for event in store.read_events("w", "key")}


async def until_given_out(store):
    while not any(event.consumer for event in store.read_events("w", "key")):
        await asyncio.sleep(0.001)


def test_a_task_gets_the_same_event_again_after_a_crash(store, events, threads):
    async def scenario():
        assert await events.post("w", "key", "payload", wait_s=AT_ONCE) == "stored"
        assert await events.wait("w", "key", "task") == "payload"
        after_crash = HttpEvents(store, threads)
        assert await after_crash.wait("w", "key", "task") == "payload"
        await after_crash.report("w", "key", True)

    asyncio.run(scenario())
    assert fates(store) == {"payload": True}


def test_a_listener_of_ones_own_gets_its_event_again_until_it_tells_its_fate(store, events):
    async def scenario():
        for payload in ("first", "second"):
            await events.post("w", "key", payload, wait_s=AT_ONCE)
        assert await events.take("w", "key", epoch=1) == "first"
        assert await events.take("w", "key", epoch=1) == "first"
        await events.report("w", "key", True)
        assert await events.take("w", "key", epoch=1) == "second"

    asyncio.run(scenario())
    assert fates(store) == {"first": True, "second": None}


def test_after_a_crash_a_listener_of_ones_own_gets_what_is_sent_again(store, events, threads):
    async def scenario():
        posted = asyncio.create_task(events.post("w", "key", "first try", wait_s=LATE))
        await until_given_out_to(1)
        posted.cancel()
        after_crash = HttpEvents(store, threads)
        taken = asyncio.create_task(after_crash.take("w", "key", epoch=2))
        answered = asyncio.create_task(after_crash.post("w", "key", "second try", wait_s=LATE))
        assert await taken == "second try"
        await after_crash.report("w", "key", True)
        assert await answered == "committed"

    async def until_given_out_to(epoch):
        taken = asyncio.create_task(events.take("w", "key", epoch=epoch))
        await until_given_out(store)
        assert await taken == "first try"

    asyncio.run(scenario())
    assert fates(store) == {"first try": False, "second try": True}


def test_an_event_whose_sender_was_told_that_it_is_stored_is_given_out_again(store, events):
    async def scenario():
        assert await events.post("w", "key", "payload", wait_s=AT_ONCE) == "stored"
        assert await events.take("w", "key", epoch=1) == "payload"
        assert await events.take("w", "key", epoch=2) == "payload"

    asyncio.run(scenario())
    assert fates(store) == {"payload": None}


def test_an_acknowledgement_may_come_twice(store, events):
    async def scenario():
        await events.post("w", "key", "payload", wait_s=AT_ONCE)
        await events.wait("w", "key", "task")
        await events.report("w", "key", True)
        await events.report("w", "key", True)

    asyncio.run(scenario())
    assert fates(store) == {"payload": True}


def test_what_was_never_given_out_can_not_be_acknowledged(events):
    async def scenario():
        await events.post("w", "key", "payload", wait_s=AT_ONCE)
        await events.report("w", "key", True)

    with pytest.raises(WorkflowEventHandleError, match="'key'"):
        asyncio.run(scenario())
