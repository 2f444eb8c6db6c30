"""The Jobs API: what a cluster answers becomes a job, or an error that says what to do."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.connection.jobs_api import Job, RayJobs
from airflow_provider_rayworkflow.connection.settings import Cluster
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowInputError,
    RayWorkflowUnreachableError,
)


class Text(str):
    """A body that is no JSON."""


#: In place of a status: the connection is reset, or closed without an answer.
RESET, NOTHING = -1, -2


class Queries(ThreadingHTTPServer):
    """Answers each path with a status and a body, and keeps what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, object]] = {}
        self.headers_of: dict[str, dict[str, str]] = {}

    @property
    def cluster(self) -> Cluster:
        return Cluster(
            address=f"http://127.0.0.1:{self.server_port}",
            token="t",
            headers={"X-Key": "k"},
            timeout_s=5,
        )


class _Handler(BaseHTTPRequestHandler):
    server: Queries

    def do_GET(self) -> None:
        self._answer(self.path)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(f"POST {self.path}")

    def _answer(self, request: str) -> None:
        self.server.headers_of[request] = dict(self.headers)
        status, body = self.server.answers.get(request, (404, "not here"))
        if status == RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        if status == NOTHING:
            self.close_connection = True
            return
        kind = "application/json"
        if isinstance(body, Text):
            content, kind = body.encode(), "text/html" if "<html" in body else "text/plain"
        else:
            content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Queries]:
    with Queries() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_job_is_found_with_its_message(server: Queries):
    server.answers["/api/jobs/j%2F1"] = (200, {"status": "FAILED", "message": "exit code 1"})
    job = RayJobs(server.cluster).find("j/1")
    assert job == Job(submission_id="j/1", status="FAILED", message="exit code 1")
    assert job.has_ended
    assert not job.was_successful


def test_what_a_job_has_printed_is_read(server: Queries):
    server.answers["/api/jobs/j%2F1/logs"] = (200, {"logs": "up\n"})
    jobs = RayJobs(server.cluster)
    assert [jobs.log("j/1"), jobs.log("unknown")] == ["up\n", ""]


def test_the_token_and_the_headers_are_sent(server: Queries):
    server.answers["/api/version"] = (200, {"ray_version": "2.60.0"})
    assert RayJobs(server.cluster).version() == "2.60.0"
    sent = server.headers_of["/api/version"]
    assert (sent["Authorization"], sent["X-Key"]) == ("Bearer t", "k")


def test_a_job_that_the_cluster_does_not_know_is_not_found(server: Queries):
    assert RayJobs(server.cluster).find("j") is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_says_where_it_belongs(server: Queries, status: int):
    server.answers["/api/version"] = (status, "no")
    with pytest.raises(RayWorkflowConnectionError, match="into the connection's password"):
        RayJobs(server.cluster).version()


@pytest.mark.parametrize(
    ("environment", "sent", "message"),
    [
        ({}, None, "answers 401 and no token was sent .none is in the connection's password, the"),
        (
            {"RAY_AUTH_TOKEN": "found"},
            "found",
            "401 to the token from the environment variable RAY",
        ),
        ({"RAY_AUTH_TOKEN": "found", "RAY_AUTH_MODE": "disabled"}, None, "RAY_AUTH_MODE=disabled"),
    ],
)
def test_without_a_password_the_token_is_rays_and_a_refusal_says_whether_one_was_sent(
    server: Queries,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    environment: dict[str, str],
    sent: str | None,
    message: str,
):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), **environment}.items():
        monkeypatch.setenv(name, value)
    cluster = replace(server.cluster, token="")
    server.answers["/api/version"] = (401, "no")
    with pytest.raises(RayWorkflowConnectionError, match=message) as refused:
        RayJobs(cluster).version()
    assert "found" not in str(refused.value)
    headers = server.headers_of["/api/version"]
    assert headers.get("Authorization") == (f"Bearer {sent}" if sent else None)
    server.answers |= {"/api/version": VERSION, "POST /api/jobs/": (403, "no")}
    with pytest.raises(RayWorkflowConnectionError, match="answers 403"):
        RayJobs(cluster).submit(submission_id="j", entrypoint="true", runtime_env={}, metadata={})
    assert server.headers_of["POST /api/jobs/"].get("Authorization") == headers.get("Authorization")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_cluster_in_trouble_is_not_reached(server: Queries, status: int):
    server.answers["/api/version"] = (status, "later")
    with pytest.raises(RayWorkflowUnreachableError, match=f"it answers {status}"):
        RayJobs(server.cluster).version()


def test_a_server_that_is_no_ray_dashboard_is_refused(server: Queries):
    with pytest.raises(RayWorkflowConnectionError, match="it answers 404 to /api/version"):
        RayJobs(server.cluster).version()


def test_a_cluster_that_does_not_answer_in_time_is_not_reached():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RayWorkflowUnreachableError, match=f"{address} can't be reached"):
            RayJobs(Cluster(address=address, timeout_s=0.1)).version()


# ---- a cluster that is just starting, and a job that is wrong

PAGE = Text("<html><body>502 Bad Gateway, try again: runtime_env ValueError</body></html>")
VERSION = (200, {"ray_version": "2.60.0"})
CONNECTING = Text(
    """Traceback (most recent call last):
  File "/ray/_private/runtime_env/packaging.py", line 1, in submit_job
    raise ValueError("runtime_env")
aiohttp.client_exceptions.ClientConnectorError: Cannot connect to host 10.0.0.1:52365
"""
)
STARTING = [
    (500, Text("No available agent to submit job, please try again later.")),
    (500, CONNECTING),
    (500, Text("")),
    (502, PAGE),
    (503, Text("upstream connect error")),
    (504, PAGE),
    (429, Text("slow down")),
    (200, PAGE),
    (200, Text("")),
    (RESET, None),
    (NOTHING, None),
]
NESTED = Text(
    """Traceback (most recent call last):
  File "job_head.py", line 1, in submit_job
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
  File "job_agent.py", line 1, in submit_job
ValueError: Invalid entrypoint.
."""
)
WRONG = [
    (400, Text("ValueError: metadata must be texts")),
    (413, Text("too large")),
    (500, NESTED),
    (500, Text("Traceback (most recent call last):\nTypeError: no dict")),
    (500, Text("Failed to set up runtime_env: pip is no list")),
]


def submit(server: Queries, answer: tuple[int, object]) -> None:
    server.answers |= {"/api/version": VERSION, "POST /api/jobs/": answer}
    RayJobs(server.cluster).submit(
        submission_id="j", entrypoint="true", runtime_env={}, metadata={}
    )


@pytest.mark.parametrize("answer", STARTING)
def test_a_cluster_that_is_just_starting_takes_the_job_later(
    server: Queries, answer: tuple[int, object]
):
    with pytest.raises(RayWorkflowUnreachableError, match="can't be reached"):
        submit(server, answer)


@pytest.mark.parametrize("answer", WRONG)
def test_a_job_that_is_wrong_is_refused_at_once(server: Queries, answer: tuple[int, object]):
    with pytest.raises(RayWorkflowConnectionError, match="refused us"):
        submit(server, answer)


@pytest.mark.parametrize("status", [400, 500])
def test_a_job_that_was_submitted_before_is_taken(server: Queries, status: int):
    submit(
        server, (status, Text("Traceback:\nValueError: Job with submission_id j already exists"))
    )


@pytest.mark.parametrize("answer", WRONG)
def test_a_refused_job_that_the_cluster_has_is_submitted(
    server: Queries, answer: tuple[int, object]
):
    server.answers["/api/jobs/j"] = (200, {"status": "PENDING"})
    submit(server, answer)


def test_a_folder_that_can_not_be_uploaded_is_no_outage(server: Queries):
    server.answers["/api/version"] = VERSION
    for missing in ({"working_dir": "/no/such/folder"}, {"py_modules": ["/no/such/folder"]}):
        with pytest.raises(RayWorkflowInputError, match="The runtime_env can't be used"):
            RayJobs(server.cluster).submit(
                submission_id="j", entrypoint="true", runtime_env=missing, metadata={}
            )


@pytest.mark.parametrize("answer", STARTING)
@pytest.mark.parametrize("call", ["version", "session_name", "find"])
def test_each_call_of_a_cluster_that_is_just_starting_can_be_made_again(
    server: Queries, answer: tuple[int, object], call: str
):
    for path in ("/api/version", "/api/jobs/j"):
        server.answers[path] = answer
    jobs = RayJobs(server.cluster)
    calls = {
        "version": jobs.version,
        "session_name": jobs.session_name,
        "find": partial(jobs.find, "j"),
    }
    with pytest.raises(RayWorkflowUnreachableError):
        calls[call]()


def test_a_page_of_what_stands_before_the_cluster_does_not_say_that_a_job_is_missing(
    server: Queries,
):
    server.answers["/api/jobs/j"] = (404, PAGE)
    with pytest.raises(RayWorkflowUnreachableError, match="a page that is not Ray's"):
        RayJobs(server.cluster).find("j")


def test_no_message_repeats_what_we_sent(server: Queries):
    cluster = replace(server.cluster, token="hidden-token", headers={"X-Key": "hidden/key"})
    for status, error in ((400, RayWorkflowConnectionError), (500, RayWorkflowUnreachableError)):
        server.answers["/api/version"] = (
            status,
            "You sent hidden-token and hidden/key, hidden%2Fkey",
        )
        with pytest.raises(error) as raised:
            RayJobs(cluster).version()
        assert "hidden" not in str(raised.value)
