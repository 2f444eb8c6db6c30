"""A manager on a cluster: started by one job where none is up, and by another one where that died."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dag_test import connection

from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.clusters.remote import RemoteCluster
from airflow_provider_rayworkflow.connection.jobs_api import Job
from airflow_provider_rayworkflow.connection.settings import Cluster
from airflow_provider_rayworkflow.exceptions import RayWorkflowManagerError, RayWorkflowStorageError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.runtime.names import MANAGER_IS_UP
from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process


class Jobs:
    """The Jobs API of one cluster."""

    def __init__(self) -> None:
        self.session = "session_1"
        self.jobs: dict[str, Job] = {}
        self.commands: dict[str, str] = {}
        self.printed = ""
        self.asked = 0

    def session_name(self) -> str:
        return self.session

    def find(self, submission_id: str) -> Job | None:
        self.asked += 1
        return self.jobs.get(submission_id)

    def log(self, submission_id: str) -> str:
        return self.printed if submission_id in self.jobs else ""

    def submit(self, *, submission_id: str, entrypoint: str, **_: object) -> None:
        self.commands[submission_id] = entrypoint
        self.jobs.setdefault(submission_id, job(submission_id, "RUNNING"))

    def end(self, status: str, message: str = "") -> None:
        self.jobs = {name: job(name, status, message) for name in self.jobs}


def job(submission_id: str, status: str, message: str = "") -> Job:
    return Job(submission_id=submission_id, status=status, message=message)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayWorkflowHook:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", connection(storage=str(tmp_path)))
    return RayWorkflowHook()


@pytest.fixture
def cluster(hook: RayWorkflowHook, jobs: Jobs) -> RemoteCluster:
    return made(hook, jobs)


def made(
    hook: RayWorkflowHook, jobs: Jobs, *, clock: Callable[[], float] = time.monotonic
) -> RemoteCluster:
    cluster = RemoteCluster(hook, Cluster(address="http://127.0.0.1:9"), clock=clock)
    cluster._jobs = jobs  # type: ignore[assignment]
    return cluster


def write_lease(hook: RayWorkflowHook, **changes: object) -> None:
    given = {
        "manager_id": "m",
        "actor_id": "a",
        "process": Process.current(),
        "renewed_at": time.time(),
        "package_version": __version__,
        "cluster": "session_1",
    }
    hook.store.leases.write(Lease(**given | changes))


def test_one_job_starts_the_manager_however_many_ask(
    hook: RayWorkflowHook, cluster: RemoteCluster, jobs: Jobs
):
    other = made(hook, jobs)
    assert [cluster.ensure(), other.ensure(), cluster.ensure()] == ["session_1"] * 3
    assert len(jobs.commands) == 1
    (command,) = jobs.commands.values()
    assert f"--storage {hook.storage_uri}" in command


def test_where_a_manager_lives_no_job_is_submitted(
    hook: RayWorkflowHook, cluster: RemoteCluster, jobs: Jobs
):
    write_lease(hook)
    assert cluster.ensure() == "session_1"
    assert jobs.commands == {}


@pytest.mark.parametrize(
    "other",
    [
        {"cluster": "session_2"},
        {"package_version": "0.0.0"},
        {"process": replace(Process.current(), pid=2**22 + 1, started="1")},
    ],
    ids=["of another cluster", "of another version", "that is dead"],
)
def test_a_manager_that_will_not_do_is_none(
    hook: RayWorkflowHook, cluster: RemoteCluster, jobs: Jobs, other: dict
):
    write_lease(hook, **other)
    cluster.ensure()
    assert len(jobs.commands) == 1


ELSEWHERE = Process(host="h", machine="", pid=1, started="")


def test_a_manager_whose_clock_is_another_one_gets_no_job_from_each_try(
    hook: RayWorkflowHook, cluster: RemoteCluster, jobs: Jobs
):
    write_lease(hook, process=ELSEWHERE, renewed_at=1000.0)
    cluster.ensure()
    write_lease(hook, process=ELSEWHERE, renewed_at=1005.0, renewals=1)
    cluster.ensure()
    assert jobs.commands == {}


def test_a_manager_that_has_died_elsewhere_is_noticed_by_a_lease_that_stays(
    hook: RayWorkflowHook, cluster: RemoteCluster, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
):
    now = 100.0
    monkeypatch.setattr(hook.store.leases.watch, "clock", lambda: now)
    write_lease(hook, process=ELSEWHERE, renewed_at=1000.0)
    cluster.ensure()
    now += 8
    cluster.ensure()
    assert len(jobs.commands) == 1


def test_jobs_that_have_failed_by_the_thousand_are_not_each_asked_for(
    cluster: RemoteCluster, jobs: Jobs
):
    """Each try of a task leaves one, as long as the cluster lives."""
    for number in range(1, 3001):
        name = f"{cluster._prefix()}{number}"
        jobs.jobs[name] = job(name, "FAILED")
    cluster.ensure()
    assert list(jobs.commands) == [f"{cluster._prefix()}3001"]
    assert jobs.asked < 40


def test_a_manager_that_has_died_is_started_by_another_job(
    hook: RayWorkflowHook, cluster: RemoteCluster, jobs: Jobs
):
    cluster.ensure()
    jobs.end("SUCCEEDED")
    write_lease(hook)
    cluster.ensure()
    assert len(jobs.commands) == 1
    hook.store.leases.delete("m")
    cluster.ensure()
    assert sorted(jobs.commands) == [
        f"{cluster._prefix()}1",
        f"{cluster._prefix()}2",
    ]


def test_a_job_that_fails_says_why_and_the_next_try_submits_another_one(
    hook: RayWorkflowHook, cluster: RemoteCluster, jobs: Jobs
):
    cluster.ensure()
    jobs.end("FAILED", "StorageError: no such bucket")
    with pytest.raises(RayWorkflowManagerError, match=r"has failed\. StorageError: no such bucket"):
        cluster.ensure()
    made(hook, jobs).ensure()
    assert len(jobs.commands) == 2


def test_managers_that_never_show_up_in_the_storage_are_not_started_for_ever(
    cluster: RemoteCluster, jobs: Jobs
):
    """The cluster's folder of that name is another one, or it has other signing keys."""
    for _ in range(3):
        cluster.ensure()
        jobs.end("SUCCEEDED")
    with pytest.raises(RayWorkflowManagerError, match="has started one, which can't be seen"):
        cluster.ensure()
    assert len(jobs.commands) == 3


def test_a_manager_that_its_job_calls_up_has_a_minute_to_show_up_in_the_storage(
    hook: RayWorkflowHook, jobs: Jobs
):
    now = 0.0
    cluster = made(hook, jobs, clock=lambda: now)
    cluster.ensure()
    now += 3600  # a package may take long to be installed
    cluster.ensure()
    jobs.printed = f"a warning\n{MANAGER_IS_UP}\n"
    cluster.ensure()
    now += 59
    cluster.ensure()
    now += 2
    with pytest.raises(RayWorkflowManagerError, match="has started one, which can't be seen"):
        cluster.ensure()
    assert len(jobs.commands) == 1


def test_a_manager_that_has_shown_up_once_gets_that_minute_again(hook: RayWorkflowHook, jobs: Jobs):
    """Its node may have died: Ray starts it on another one, and the job stays."""
    now = 0.0
    cluster = made(hook, jobs, clock=lambda: now)
    jobs.printed = MANAGER_IS_UP
    cluster.ensure()
    cluster.ensure()
    write_lease(hook)
    cluster.ensure()
    hook.store.leases.delete("m")
    now += 61
    assert [cluster.ensure(), cluster.ensure()] == ["session_1"] * 2
    assert len(jobs.commands) == 1


def test_a_cluster_that_was_started_anew_is_another_one(cluster: RemoteCluster, jobs: Jobs):
    cluster.ensure()
    jobs.session, jobs.jobs, jobs.commands = "session_2", {}, {}
    assert cluster.ensure() == "session_2"
    assert len(jobs.commands) == 1


def test_managers_that_can_not_be_read_may_be_read_a_moment_later(
    hook: RayWorkflowHook, cluster: RemoteCluster, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
):
    def fail() -> list[Lease]:
        raise DataLoadError("The storage does not answer.", is_transient=True)

    monkeypatch.setattr(hook.store.leases, "list_all", fail)
    with pytest.raises(RayWorkflowStorageError, match="does not answer") as error:
        cluster.ensure()
    assert error.value.is_transient
    assert jobs.commands == {}
