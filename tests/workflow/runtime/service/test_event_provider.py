"""The provider of HTTP events behind the server that Ray Serve uses, without Ray."""

import http.client
import itertools
import socket
import threading
from types import SimpleNamespace

import pytest
import uvicorn
from ray.serve.exceptions import RayServeException
from starlette.requests import Request
from waiting import wait_until

from airflow_provider_rayworkflow.workflow.common import HTTP_EVENT_PROVIDER_NAME
from airflow_provider_rayworkflow.workflow.model.event_posts import EventSettings
from airflow_provider_rayworkflow.workflow.runtime.names import at_location, event_path
from airflow_provider_rayworkflow.workflow.runtime.service import http_events

pytestmark = pytest.mark.filterwarnings("ignore")

HEADERS = {"authorization": "Bearer right", "content-type": "application/json"}
TARGET = "/event/send_event/w"


class Manager:
    """Answers as the manager's actor does."""

    def __init__(self):
        self.ask = SimpleNamespace(remote=self._ask)
        self.post_event = SimpleNamespace(remote=self._post)

    async def _ask(self, method):
        assert method == "http_events.settings"
        return EventSettings(token="right")

    async def _post(self, *event):
        return "committed"


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(http_events, "manager_of", lambda _location: Manager())
    provider = http_events.HTTPEventProvider.func_or_class("/data")

    async def app(scope, receive, send):
        answer = await provider(Request(scope, receive))
        await answer(scope, receive, send)

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    wait_until(lambda: server.started)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()


def send(port, body, *, target=TARGET, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", target, body, HEADERS | {"connection": "close"} | headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_event_is_taken(port):
    assert send(port, b'{"event_key": "key", "event_payload": 1}') == 200


def test_each_storage_has_a_path_of_its_own(port):
    body = b'{"event_key": "key", "event_payload": 1}'
    assert send(port, body, target=f"{event_path('/data')}/send_event/w") == 200
    assert send(port, body, target=f"{event_path('/other')}/send_event/w") == 404


class Serve:
    """Ray Serve, as far as names and routes go."""

    def __init__(self, *applications):
        self.routes = dict.fromkeys(applications, "/event")

    def status(self):
        return SimpleNamespace(applications=self.routes)

    def run(self, _, *, name, route_prefix):
        if route_prefix in self.routes.values():
            raise RayServeException(f"Prefix {route_prefix} is being used by another application.")
        self.routes[name] = route_prefix

    def get_app_handle(self, name):
        return name


@pytest.fixture
def on(monkeypatch):
    """Start the provider on a cluster, for a task of a storage, or for a driver; its name."""

    def on(serve, location, *, managers=1):
        monkeypatch.setattr(http_events, "serve", serve)
        monkeypatch.setattr(http_events, "HTTPEventProvider", SimpleNamespace(bind=lambda _: None))
        monkeypatch.setattr(http_events, "has_several_managers", lambda: managers > 1)
        if location is None:
            return http_events.start_provider(restart_interval_s=0.0)
        with at_location(location):
            return http_events.start_provider(restart_interval_s=0.0)

    return on


def test_each_storage_of_a_cluster_has_an_application_of_its_own(on):
    serve = Serve()
    first, second = on(serve, "/data"), on(serve, "/other", managers=2)
    assert on(serve, "/data", managers=2) == first != second
    assert serve.routes == {first: "/event", second: event_path("/other")}


def test_the_application_of_a_program_is_used_where_it_can_only_mean_one_storage(on):
    """As programs for Ray Workflows start it."""
    serve = Serve(HTTP_EVENT_PROVIDER_NAME)
    assert on(serve, "/data") == HTTP_EVENT_PROVIDER_NAME
    assert on(serve, None) == HTTP_EVENT_PROVIDER_NAME
    own = on(serve, "/data", managers=2)
    assert serve.routes == {HTTP_EVENT_PROVIDER_NAME: "/event", own: event_path("/data")}


def test_of_two_storages_that_start_at_once_one_gets_a_route_of_its_own(on):
    class Racing(Serve):
        def run(self, application, *, name, route_prefix):
            self.routes.setdefault(f"{HTTP_EVENT_PROVIDER_NAME}-faster", "/event")
            super().run(application, name=name, route_prefix=route_prefix)

    serve = Racing()
    name = on(serve, "/data", managers=2)
    assert serve.routes[name] == event_path("/data")


def test_the_sender_of_a_large_body_sees_why_it_is_refused(port):
    assert send(port, b"x" * 50_000_000) == 413
    assert send(port, b"x" * 50_000_000, authorization="") == 401


def test_a_body_without_an_end_is_not_read_for_ever(port):
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send(port, itertools.repeat(b" " * 65536))


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(port):
    fields = HEADERS | {"host": "x", "content-length": "50000000"}
    lines = [f"POST {TARGET} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
