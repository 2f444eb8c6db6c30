"""The provider of HTTP events behind the server that Ray Serve uses, without Ray."""

import http.client
import itertools
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import uvicorn
from starlette.requests import Request

from airflow_provider_rayworkflow.workflow.model.event_posts import EventSettings
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
    monkeypatch.setattr(http_events, "get_manager", Manager)
    provider = http_events.HTTPEventProvider.func_or_class()

    async def app(scope, receive, send):
        answer = await provider(Request(scope, receive))
        await answer(scope, receive, send)

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()


def send(port, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", TARGET, body, HEADERS | {"connection": "close"} | headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_event_is_taken(port):
    assert send(port, b'{"event_key": "key", "event_payload": 1}') == 200


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
