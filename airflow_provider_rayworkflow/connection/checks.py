"""What works of a connection and what does not, for the form's Test button."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

from airflow_provider_rayworkflow.connection.jobs_api import RayJobs
from airflow_provider_rayworkflow.connection.settings import Cluster
from airflow_provider_rayworkflow.connection.time_limits import in_thread
from airflow_provider_rayworkflow.exceptions import RayWorkflowConnectionError

#: Says what works, or raises.
Check = Callable[[], str]


def run_checks(checks: Sequence[tuple[str, Check]], *, timeout_s: float) -> tuple[bool, str]:
    """Run checks beside each other; whether all passed, and what each says. Never raises.

    :param checks: each with its subject.
    :param timeout_s: for all of them together.
    """
    running = [(subject, in_thread(check, name="connection-test")) for subject, check in checks]
    wait([answer for _, answer in running], timeout_s)
    answers = [_said(subject, answer, timeout_s) for subject, answer in running]
    passed = all(works for works, _ in answers)
    first_bad = sorted(answers, key=lambda answer: answer[0])  # what fails is read first
    return passed, " ".join(_sentence(text) for _, text in first_bad)


def _said(subject: str, answer: Future[str], timeout_s: float) -> tuple[bool, str]:
    if not answer.done():
        return False, f"{subject}: no answer in {timeout_s:g} s"
    try:
        return True, answer.result()
    except Exception as exc:  # the form shows the text
        return False, f"{subject}: {type(exc).__name__}: {exc}"


def check_local_ray() -> str:
    """Ray must be installed here."""
    if importlib.util.find_spec("ray") is None:
        raise RayWorkflowConnectionError("Ray is not installed here: pip install 'ray[default]'.")
    return (
        f"Ray {importlib.metadata.version('ray')} is installed, for the local Ray of this machine"
    )


def check_cluster(cluster: Cluster) -> str:
    """The cluster must answer and take the token."""
    jobs = RayJobs(cluster)
    version = jobs.version()
    jobs.find("connection-test")
    token = jobs.token
    accepted = f"takes the token from {token.source}" if token.value else "asks for no token"
    return f"The Ray cluster at {cluster.address} runs Ray {version} and {accepted}"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
