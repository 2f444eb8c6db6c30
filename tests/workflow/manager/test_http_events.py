"""HTTP events in the manager: stored, given out, acknowledged."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import until

from airflow_provider_rayworkflow.workflow.exceptions import WorkflowEventHandleError
from airflow_provider_rayworkflow.workflow.manager.http_events import HttpEvents
from airflow_provider_rayworkflow.workflow.model.event_posts import EventSettings, RefusedPostError
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.events import EventStore

AT_ONCE = 0.0
LATE = 60.0


@pytest.fixture
def store():
    return WorkflowStore(MemoryStore())


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as threads:
        yield threads


async def is_open(workflow_id):
    return "open"


@pytest.fixture
def make_events(store, threads):
    """Makes what a manager has, with settings of the test."""

    def make_events(*, on=None, reception=is_open, clock=time.time, **settings):
        return HttpEvents(
            on or store,
            threads,
            reception=reception,
            settings=EventSettings(**settings),
            clock=clock,
        )

    return make_events


@pytest.fixture
def events(make_events):
    return make_events()


class CountingStore(MemoryStore):
    """Counts what is listed and read."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def list(self, folder):
        found = list(super().list(folder))
        self.calls += 1 + len(found)
        return iter(found)

    def get(self, key, start=0, length=None):
        self.calls += 1
        return super().get(key, start, length)


def fates(store):
    return {event.payload: event.is_committed for event in EventStore(store.bytes).read_all("w")}


async def until_given_out(store):
    events = EventStore(store.bytes)
    await until(lambda: any(event.consumer for event in events.read_all("w")))


async def test_a_task_gets_the_same_event_again_after_a_crash(store, events, make_events):
    assert await events.post("w", "key", "payload", wait_s=AT_ONCE) == "stored"
    assert await events.wait("w", "key", "task") == "payload"
    after_crash = make_events()
    assert await after_crash.wait("w", "key", "task") == "payload"
    await after_crash.report("w", "key", True)
    assert fates(store) == {"payload": True}


async def test_a_listener_of_ones_own_gets_its_event_again_until_it_tells_its_fate(store, events):
    for payload in ("first", "second"):
        await events.post("w", "key", payload, wait_s=AT_ONCE)
    assert await events.take("w", "key", epoch=1) == "first"
    assert await events.take("w", "key", epoch=1) == "first"
    await events.report("w", "key", True)
    assert await events.take("w", "key", epoch=1) == "second"
    assert fates(store) == {"first": True, "second": None}


async def test_after_a_crash_a_listener_of_ones_own_gets_what_is_sent_again(
    store, events, make_events
):
    posted = asyncio.create_task(events.post("w", "key", "first try", wait_s=LATE))
    taken = asyncio.create_task(events.take("w", "key", epoch=1))
    await until_given_out(store)
    assert await taken == "first try"
    posted.cancel()
    after_crash = make_events()
    taken = asyncio.create_task(after_crash.take("w", "key", epoch=2))
    answered = asyncio.create_task(after_crash.post("w", "key", "second try", wait_s=LATE))
    assert await taken == "second try"
    await after_crash.report("w", "key", True)
    assert await answered == "committed"
    assert fates(store) == {"first try": False, "second try": True}


async def test_an_event_whose_sender_was_told_that_it_is_stored_is_given_out_again(store, events):
    assert await events.post("w", "key", "payload", wait_s=AT_ONCE) == "stored"
    assert await events.take("w", "key", epoch=1) == "payload"
    assert await events.take("w", "key", epoch=2) == "payload"
    assert fates(store) == {"payload": None}


async def test_an_acknowledgement_may_come_twice(store, events):
    await events.post("w", "key", "payload", wait_s=AT_ONCE)
    await events.wait("w", "key", "task")
    await events.report("w", "key", True)
    await events.report("w", "key", True)
    assert fates(store) == {"payload": True}


async def test_an_event_that_was_never_given_out_can_not_be_acknowledged(events):
    await events.post("w", "key", "payload", wait_s=AT_ONCE)
    with pytest.raises(WorkflowEventHandleError, match="'key'"):
        await events.report("w", "key", True)


def run_posts(events, posts, **options):
    """Post one after the other; returns the fates, or the statuses of those that are refused."""

    async def scenario():
        fates = []
        for workflow_id, event_key, payload in posts:
            try:
                fates.append(
                    await events.post(workflow_id, event_key, payload, wait_s=AT_ONCE, **options)
                )
            except RefusedPostError as exc:
                fates.append(exc.status)
        return fates

    return asyncio.run(scenario())


@pytest.mark.invariant(12)
def test_a_post_costs_the_same_however_many_came_before(make_events):
    calls = {}
    for count in (100, 200):
        counting = CountingStore()
        events = make_events(on=WorkflowStore(counting))
        run_posts(events, [("w", "key", n) for n in range(count)])
        calls[count] = counting.calls
    assert calls[200] <= 2 * calls[100] + 5


async def test_the_fate_of_one_event_makes_no_poster_of_another_read(make_events):
    counting = CountingStore()
    events = make_events(on=WorkflowStore(counting))

    posts = [asyncio.create_task(events.post("w", "key", n, wait_s=LATE)) for n in range(100)]
    for n in range(100):
        await events.wait("w", "key", f"task {n}")
    before = counting.calls
    for _ in range(100):
        await events.report("w", "key", True)
    assert await asyncio.gather(*posts) == ["committed"] * 100
    assert (counting.calls - before) <= 100


def test_too_many_events_of_one_key_are_refused_and_others_are_not(make_events):
    events = make_events(max_per_key=2)
    posts = [("w", "key", 1), ("w", "key", 2), ("w", "key", 3), ("w", "other", 3), ("v", "key", 3)]
    assert run_posts(events, posts) == ["stored", "stored", 429, "stored", "stored"]


def test_too_many_events_of_one_workflow_are_refused_and_others_are_not(make_events):
    events = make_events(max_per_workflow=2)
    posts = [("w", "a", 1), ("w", "b", 1), ("w", "c", 1), ("v", "c", 1)]
    assert run_posts(events, posts) == ["stored", "stored", 429, "stored"]


async def test_events_that_come_at_the_same_moment_do_not_pass_the_limit_together(make_events):
    events = make_events(max_per_workflow=3)

    posts = [events.post("w", str(n), n, wait_s=AT_ONCE) for n in range(20)]
    assert (await asyncio.gather(*posts, return_exceptions=True)).count("stored") == 3


async def test_an_acknowledged_event_makes_room_for_another(make_events):
    events = make_events(max_per_key=1)

    await events.post("w", "key", 1, wait_s=AT_ONCE)
    await events.wait("w", "key", "task")
    await events.report("w", "key", True)
    assert await events.post("w", "key", 2, wait_s=AT_ONCE) == "stored"


def test_the_same_event_again_is_not_refused_where_a_new_one_is(make_events):
    events = make_events(max_per_key=1)
    posts = [("w", "key", 1), ("w", "key", 1), ("w", "key", True)]
    assert run_posts(events, posts) == ["stored", "stored", 429]


@pytest.mark.invariant(9)
@pytest.mark.parametrize(("reception", "status"), [("unknown", 404), ("ended", 409)])
def test_an_event_that_no_task_can_get_is_refused_and_not_stored(
    make_events, store, reception, status
):
    async def stands(workflow_id):
        return reception

    assert run_posts(make_events(reception=stands), [("w", "key", 1)]) == [status]
    assert list(store.bytes.list("")) == []


def test_early_events_are_kept_where_that_is_asked_for_and_expire(make_events, store):
    now = 1_000.0

    async def unknown(workflow_id):
        return "unknown"

    events = make_events(reception=unknown, early_s=60, clock=lambda: now)
    assert run_posts(events, [("old", "key", 1)]) == ["stored"]
    now += 61
    assert run_posts(events, [("new", "key", 1)]) == ["stored"]
    assert set(EventStore(store.bytes).list_segments()) == {"new"}


async def test_events_that_another_process_deleted_are_not_missed(make_events, store):
    events = make_events()

    await events.post("w", "key", "deleted", wait_s=AT_ONCE)
    store.bytes.delete_folder(keys.events_folder("w"))
    await events.post("w", "key", "deleted", wait_s=AT_ONCE)
    assert await events.wait("w", "key", "task") == "deleted"


async def test_two_managers_do_not_overwrite_each_others_events(make_events, store):
    here, there = make_events(), make_events()

    await here.post("w", "key", 1, wait_s=AT_ONCE)
    await there.post("w", "key", 2, wait_s=AT_ONCE)
    await here.post("w", "key", 3, wait_s=AT_ONCE)
    assert fates(store) == {1: None, 2: None, 3: None}


@pytest.mark.invariant(11)
def test_a_damaged_event_hides_no_other(make_events, store):
    run_posts(make_events(), [("w", "key", n) for n in range(3)])
    store.bytes.put(keys.event_key("w", "key", 1), b"damaged")
    store.bytes.put(keys.event_key("w", "key", 3), b"damaged")
    assert run_posts(make_events(), [("w", "key", 3)]) == ["stored"]
    assert fates(store) == {0: None, 2: None, 3: None}


@pytest.mark.parametrize("event_key", ["", "\ud800", "a\nb", "k" * 1025])
async def test_a_task_can_not_wait_for_a_key_that_no_event_can_have(events, event_key):
    with pytest.raises(ValueError, match="event_key must have"):
        await events.wait("w", event_key, "task")


async def test_a_token_is_generated_once_and_shared_by_all(make_events, store):
    one, other = await make_events().settings(), await make_events().settings()
    assert one.token == other.token == EventStore(store.bytes).token()
    assert len(one.token) >= 32
    assert one.token not in repr(one)


async def test_a_given_token_is_used_and_stored_nowhere(make_events, store):
    assert (await make_events(token="given").settings()).token == "given"
    assert list(store.bytes.list("")) == []
