"""Events by HTTP: stored when they come, delivered once, answered when they are checkpointed."""

import asyncio
import http.client
import itertools
import json
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest
import ray
from managers import crash_manager
from ray import serve
from witness import wait_until

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.execution.context import get_current_workflow_id
from airflow_provider_rayworkflow.workflow.http_event_provider import (
    HTTP_EVENT_PROVIDER_NAME,
    HTTPEventProvider,
    HTTPListener,
    WorkflowEventHandleError,
    get_event_token,
)
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.events import EventStore

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def port(ray_cluster):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()


def start_provider():
    if HTTP_EVENT_PROVIDER_NAME not in serve.status().applications:
        serve.run(HTTPEventProvider.bind(), name=HTTP_EVENT_PROVIDER_NAME, route_prefix="/event")


@pytest.fixture
def provider(port, manager):
    start_provider()
    return port


class Post(threading.Thread):
    """A POST under way; ``answer()`` waits for its status."""

    def __init__(self, port, workflow_id, body, **headers):
        super().__init__(daemon=True)
        self._headers = {
            "authorization": f"Bearer {get_event_token()}",
            "content-type": "application/json",
            **headers,
        }
        quoted = urllib.parse.quote(workflow_id, safe="")
        self._url = f"http://127.0.0.1:{port}/event/send_event/{quoted}"
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._status = None
        self.start()

    def run(self):
        request = urllib.request.Request(self._url, self._body, self._headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                self._status = response.status
        except urllib.error.HTTPError as error:
            self._status = error.code
            error.close()

    def answer(self):
        self.join(timeout=60)
        return self._status


@pytest.fixture
def is_stored(shared_root):
    """Whether an event of a workflow is in the storage."""

    def is_stored(workflow_id):
        return EventStore(LocalStore(shared_root)).read_all(workflow_id) != []

    return is_stored


def post(port, workflow_id, key, payload):
    return Post(port, workflow_id, {"event_key": key, "event_payload": payload})


@ray.remote
def gather(*events):
    return list(events)


def wait_for(key=None):
    args = () if key is None else (key,)
    return workflow.wait_for_event(HTTPListener, *args)


@ray.remote
def wait_later(gate, key):
    gate.wait()
    return workflow.continuation(wait_for(key))


@pytest.mark.parametrize("payload", ["text", 5, None, [1, {"a": None}], {"key": "value"}], ids=str)
def test_an_event_reaches_the_workflow_that_waits_for_it(provider, new_id, payload):
    ref = workflow.run_async(gather.bind(wait_for("key")), workflow_id=new_id)
    assert workflow.get_status(new_id) is workflow.RUNNING
    assert post(provider, new_id, "key", payload).answer() == 200
    assert ray.get(ref) == [("key", payload)]


@pytest.mark.parametrize("odd", ["a b", "ü", "per%cent", "a?b#c", "a/b"])
def test_the_id_of_the_workflow_may_be_any(provider, new_id, odd):
    odd = f"{odd} {new_id}"
    ref = workflow.run_async(wait_for("key"), workflow_id=odd)
    assert post(provider, odd, "key", 1).answer() == 200
    assert ray.get(ref) == ("key", 1)


def test_an_event_that_comes_before_its_task_waits_is_kept(provider, new_id, is_stored, gate):
    ref = workflow.run_async(wait_later.bind(gate, "key"), workflow_id=new_id)
    posted = post(provider, new_id, "key", "early")
    wait_until(lambda: is_stored(new_id))
    gate.open()
    assert ray.get(ref) == ("key", "early")
    assert posted.answer() == 200


def test_events_have_keys(provider, new_id):
    dag = gather.bind(wait_for("a"), wait_for("b"))
    ref = workflow.run_async(dag, workflow_id=new_id)
    assert post(provider, new_id, "b", "for b").answer() == 200
    assert ray.wait([ref], timeout=0.5)[0] == []
    assert post(provider, new_id, "a", "for a").answer() == 200
    assert ray.get(ref) == [("a", "for a"), ("b", "for b")]


def test_one_key_in_two_workflows_is_two_events(provider, new_id):
    refs = [workflow.run_async(wait_for("key"), workflow_id=f"{new_id}.{n}") for n in range(2)]
    assert post(provider, f"{new_id}.1", "key", "for 1").answer() == 200
    assert ray.get(refs[1]) == ("key", "for 1")
    assert ray.wait([refs[0]], timeout=0.5)[0] == []
    assert post(provider, f"{new_id}.0", "key", "for 0").answer() == 200
    assert ray.get(refs[0]) == ("key", "for 0")


def test_the_default_key_is_the_tasks_id(provider, new_id):
    ref = workflow.run_async(wait_for(), workflow_id=new_id)
    task_id = "airflow_provider_rayworkflow.workflow.runtime.worker.events.get_message"
    assert workflow.get_metadata(new_id, task_id)["task_id"] == task_id
    assert post(provider, new_id, task_id, "payload").answer() == 200
    assert ray.get(ref) == (task_id, "payload")


def test_an_event_in_a_continuation(provider, new_id):
    @ray.remote
    def start():
        return workflow.continuation(gather.bind(wait_for("inner")))

    ref = workflow.run_async(start.bind(), workflow_id=new_id)
    assert post(provider, new_id, "inner", 1).answer() == 200
    assert ray.get(ref) == [("inner", 1)]


def test_the_same_event_twice_is_delivered_once(provider, new_id, is_stored, gate):
    ref = workflow.run_async(wait_later.bind(gate, "key"), workflow_id=new_id)
    posts = [post(provider, new_id, "key", "same") for _ in range(3)]
    wait_until(lambda: is_stored(new_id))
    gate.open()
    assert ray.get(ref) == ("key", "same")
    assert 200 in {one.answer() for one in posts}
    # One that came when the workflow had ended was told so.
    assert {one.answer() for one in posts} <= {200, 202, 409}


def test_two_waits_for_one_key_get_two_events(provider, new_id):
    @ray.remote
    def then(first):
        return workflow.continuation(gather.bind(first, wait_for("key")))

    ref = workflow.run_async(then.bind(wait_for("key")), workflow_id=new_id)
    assert post(provider, new_id, "key", 1).answer() == 200
    assert post(provider, new_id, "key", 2).answer() == 200
    assert ray.get(ref) == [("key", 1), ("key", 2)]


def test_a_listener_that_refuses_has_the_post_answered_with_500(provider, new_id):
    class Refuses(HTTPListener):
        async def event_checkpointed(self, event):
            key, _ = event
            workflow_id = workflow.get_context().workflow_id
            await self.handle.report_checkpointed.remote(workflow_id, key, False)

    ref = workflow.run_async(workflow.wait_for_event(Refuses, "key"), workflow_id=new_id)
    assert post(provider, new_id, "key", 1).answer() == 500
    assert ray.get(ref) == ("key", 1)


def test_a_resumed_workflow_gets_an_event_that_was_not_checkpointed(provider, new_id, gate, ledger):
    class Stumbles(HTTPListener):
        async def poll_for_event(self, key):
            event = await super().poll_for_event(key)
            ledger.write("polled")
            if not gate.is_open:
                raise ConnectionError("lost it")
            return event

    ref = workflow.run_async(workflow.wait_for_event(Stumbles, "key"), workflow_id=new_id)
    posted = post(provider, new_id, "key", "payload")
    with pytest.raises(workflow.WorkflowExecutionError, match="lost it"):
        ray.get(ref)
    gate.open()
    assert workflow.resume(new_id) == ("key", "payload")
    assert posted.answer() == 200
    assert ledger.count("polled") == 2


def test_after_a_crash_a_listener_of_ones_own_gets_what_is_sent_again(
    port, fresh_manager, gate, ledger
):
    class Own(HTTPListener):
        async def poll_for_event(self, event_key):
            workflow_id = get_current_workflow_id()
            event = await self.handle.get_event_payload.remote(workflow_id, event_key)
            ledger.write(event)
            while not gate.is_open:
                await asyncio.sleep(0.05)
            return event

    root = fresh_manager()
    start_provider()
    workflow.run_async(workflow.wait_for_event(Own, event_key="key"), workflow_id="own")
    post(port, "own", "key", "first")
    ledger.wait_for(("key", "first"))
    fresh_manager(storage=root)
    gate.open()
    ref = workflow.resume_async("own")
    assert workflow.get_status("own") is workflow.RUNNING
    assert post(port, "own", "key", "second").answer() == 200
    assert ray.get(ref) == ("key", "second")


def test_an_event_that_was_never_sent_can_not_be_acknowledged(provider, new_id):
    class Wrong(HTTPListener):
        async def event_checkpointed(self, event):
            await super().event_checkpointed(("another key", None))

    ref = workflow.run_async(workflow.wait_for_event(Wrong, "key"), workflow_id=new_id)
    post(provider, new_id, "key", 1)
    with pytest.raises(workflow.WorkflowExecutionError, match="'another key'") as caught:
        ray.get(ref)
    assert isinstance(caught.value.cause.__cause__, WorkflowEventHandleError)


def test_a_deleted_id_can_wait_for_its_key_again(provider, new_id):
    for payload in ("first", "second"):
        ref = workflow.run_async(wait_for("key"), workflow_id=new_id)
        assert post(provider, new_id, "key", payload).answer() == 200
        assert ray.get(ref) == ("key", payload)
        workflow.delete(new_id)


def test_an_event_survives_a_restart_of_serve(provider, new_id, is_stored, ledger, gate):
    class Noted(HTTPListener):
        async def poll_for_event(self, event_key):
            ledger.write("polls")
            return await super().poll_for_event(event_key)

    ref = workflow.run_async(workflow.wait_for_event(Noted, "key"), workflow_id=new_id)
    dag = workflow.wait_for_event(Noted, "other")
    other = workflow.run_async(dag, workflow_id=f"{new_id}-2")
    third = workflow.run_async(wait_later.bind(gate, "key"), workflow_id=f"{new_id}-3")
    post(provider, f"{new_id}-3", "key", "stored")
    wait_until(lambda: is_stored(f"{new_id}-3"))
    ledger.wait_for("polls", times=2)  # a listener that begins would start the application again
    serve.delete(HTTP_EVENT_PROVIDER_NAME)
    start_provider()
    assert post(provider, new_id, "key", 1).answer() == 200
    assert post(provider, f"{new_id}-2", "other", 2).answer() == 200
    assert ray.get([ref, other]) == [("key", 1), ("other", 2)]
    gate.open()
    assert ray.get(third) == ("key", "stored")


def test_an_event_survives_a_crash_of_the_manager(port, fresh_manager, gate):
    root = fresh_manager()
    start_provider()
    later = workflow.run_async(wait_later.bind(gate, "key"), workflow_id="later")
    post(port, "later", "key", "stored")
    wait_until(lambda: EventStore(LocalStore(root)).read_all("later"))
    ref = workflow.run_async(wait_for("key"), workflow_id="waits")
    crash_manager(root)
    gate.open()
    assert ray.get(later) == ("key", "stored")
    wait_until(lambda: post(port, "waits", "key", 1).answer() == 200)
    assert ray.get(ref) == ("key", 1)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"no json", {}, 400),
        ({"event_key": "\ud800", "event_payload": 1}, {}, 400),
        ({"event_key": "key", "event_payload": 1}, {"authorization": ""}, 401),
        ({"event_key": "key", "event_payload": 1}, {"content-type": "text/plain"}, 415),
        ({"event_key": "key", "event_payload": "x" * 2**20}, {}, 413),
        (b"x" * 50_000_000, {}, 413),
        (b"x" * 50_000_000, {"authorization": ""}, 401),
        ({"event_key": "key", "event_payload": 1}, {}, 404),
    ],
    ids=lambda value: f"{value!s:.60}",
)
def test_a_post_that_can_not_be_taken_is_refused_and_not_stored(
    provider, new_id, is_stored, body, headers, status
):
    assert Post(provider, new_id, body, **headers).answer() == status
    assert not is_stored(new_id)


def test_a_body_of_unknown_length_is_read_up_to_the_limit(provider, new_id):
    connection = http.client.HTTPConnection("127.0.0.1", provider, timeout=60)
    endless = itertools.repeat(b" " * 65536)
    headers = {
        "authorization": f"Bearer {get_event_token()}",
        "content-type": "application/json",
    }
    try:
        connection.request("POST", f"/event/send_event/{new_id}", endless, headers)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was answered while we sent
    else:
        pytest.fail("an endless body was read")
    finally:
        connection.close()


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(provider, new_id):
    with socket.create_connection(("127.0.0.1", provider), timeout=60) as connection:
        connection.sendall(
            f"POST /event/send_event/{new_id} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {get_event_token()}\r\nContent-Type: application/json\r\n"
            "Content-Length: 50000000\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_an_unknown_path_is_404_and_another_method_405(provider):
    for path, method, status in [("nothing", "POST", 404), ("send_event/w", "GET", 405)]:
        request = urllib.request.Request(f"http://127.0.0.1:{provider}/event/{path}", method=method)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=30)
        assert caught.value.code == status
        caught.value.close()
