"""The Jobs API: what a cluster answers becomes a job, or an error that says what to do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from airflow_provider_rayworkflow.connections import Cluster
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowConnectionError,
    RayWorkflowInputError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.jobs import Job, RayJobs
from airflow_provider_rayworkflow.remote import job_environment


class Answers(ThreadingHTTPServer):
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
    server: Answers

    def do_GET(self) -> None:
        self.server.headers_of[self.path] = dict(self.headers)
        status, body = self.server.answers.get(self.path, (404, "not here"))
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_job_is_found_with_its_message(server: Answers):
    server.answers["/api/jobs/j%2F1"] = (200, {"status": "FAILED", "message": "exit code 1"})
    job = RayJobs(server.cluster).find("j/1")
    assert job == Job(submission_id="j/1", status="FAILED", message="exit code 1")
    assert job.has_ended
    assert not job.was_successful


def test_the_token_and_the_headers_are_sent(server: Answers):
    server.answers["/api/version"] = (200, {"ray_version": "2.60.0"})
    assert RayJobs(server.cluster).version() == "2.60.0"
    sent = server.headers_of["/api/version"]
    assert (sent["Authorization"], sent["X-Key"]) == ("Bearer t", "k")


def test_a_job_that_the_cluster_does_not_know_is_none(server: Answers):
    assert RayJobs(server.cluster).find("j") is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_says_where_it_belongs(server: Answers, status: int):
    server.answers["/api/version"] = (status, "no")
    with pytest.raises(RayWorkflowConnectionError, match="into the connection's password"):
        RayJobs(server.cluster).version()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_cluster_in_trouble_is_not_reached(server: Answers, status: int):
    server.answers["/api/version"] = (status, "later")
    with pytest.raises(RayWorkflowUnreachableError, match=f"it answers {status}"):
        RayJobs(server.cluster).version()


def test_what_is_no_ray_dashboard_is_refused(server: Answers):
    with pytest.raises(RayWorkflowConnectionError, match="it answers 404 to /api/version"):
        RayJobs(server.cluster).version()


def test_a_cluster_that_does_not_answer_in_time_is_not_reached():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RayWorkflowUnreachableError, match=f"{address} can't be reached"):
            RayJobs(Cluster(address=address, timeout_s=0.1)).version()


def test_a_jobs_environment_has_this_package_before_the_authors():
    environment = job_environment({"py_modules": ["/mine"], "env_vars": {"A": "b"}})
    *ours, mine = environment["py_modules"]
    assert [path.rpartition("/")[2] for path in ours] == [
        "airflow_provider_rayworkflow",
        "cloudpickle",
    ]
    assert mine == "/mine"
    assert environment["env_vars"] == {"A": "b"}


@pytest.mark.parametrize("wrong", ["text", ["list"], {"py_modules": "/mine"}])
def test_an_environment_of_another_form_is_refused(wrong: object):
    with pytest.raises(RayWorkflowInputError, match="runtime_env"):
        job_environment(wrong)
