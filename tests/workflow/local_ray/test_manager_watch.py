"""The keeper's eye on one manager: what counts as idle, and for how long doubt does."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from waiting import wait_until

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size, StartedCluster
from airflow_provider_rayworkflow.workflow.local_ray.manager_watch import ManagerWatch, WatchTimes


class Cluster:
    def __init__(self) -> None:
        self.managers: list[tuple[str, str]] = []
        self.count = 0
        self.looks = 0
        self.error: Exception | None = None
        self.watches: list[ManagerWatch] = []
        self.may_start = threading.Event()
        self.may_start.set()

    def start(self, size: Size, *, token_file: str) -> StartedCluster:
        raise NotImplementedError

    def has_ended(self) -> bool:
        return False

    def start_manager(self, storage: str, location: str) -> None:
        self.may_start.wait(10)
        self.managers.append((storage, location))
        if self.error is not None:
            raise self.error

    def held(self, storage: str) -> int:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.count

    def stop(self) -> None: ...


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.may_start.set()
    for watch in cluster.watches:
        watch.close()


@pytest.fixture
def reports() -> list[tuple[str, str, bool]]:
    return []


def make(cluster: Cluster, reports: list, *, doubt_s: float = 600.0) -> ManagerWatch:
    def report(storage: str, problem: str, is_transient: bool) -> None:
        reports.append((storage, problem, is_transient))

    times = WatchTimes(look_s=0.02, doubt_s=doubt_s)
    watch = ManagerWatch(cluster, "/data", report=report, times=times)
    cluster.watches.append(watch)
    return watch


def test_it_is_busy_from_the_request_until_nothing_is_held(cluster: Cluster, reports: list):
    cluster.may_start.clear()
    cluster.count = 2
    watch = make(cluster, reports)
    watch.ask("/location")
    assert watch.is_busy
    assert not watch.is_idle_now(0.05)
    cluster.may_start.set()
    wait_until(lambda: cluster.looks > 2)
    assert watch.is_busy
    assert not watch.is_idle_now(5)
    cluster.count = 0
    assert watch.is_idle_now(5)
    assert not watch.is_busy
    assert reports == [("/data", "", False)]
    assert cluster.managers == [("/data", "/location")]


def test_a_look_that_began_before_the_question_does_not_answer_it(cluster: Cluster, reports: list):
    watch = make(cluster, reports)
    watch.ask("/data")
    wait_until(lambda: not watch.is_busy)
    looks = cluster.looks
    cluster.count = 1
    assert not watch.is_idle_now(5)
    assert cluster.looks > looks


@pytest.mark.parametrize(
    ("error", "is_transient"),
    [
        (OSError("no such bucket"), False),
        (DataLoadError("no such bucket"), False),
        (DataLoadError("no such bucket", is_transient=True), True),
    ],
    ids=["foreign", "lasting", "transient"],
)
def test_a_manager_that_does_not_start_is_reported_and_holds_nothing(
    cluster: Cluster, reports: list, error: Exception, is_transient: bool
):
    cluster.error = error
    watch = make(cluster, reports)
    watch.ask("/data")
    wait_until(lambda: reports)
    assert reports == [("/data", "no such bucket.", is_transient)]
    wait_until(lambda: not watch.is_busy)
    cluster.error = None
    watch.ask("/data")
    wait_until(lambda: len(reports) == 2)
    assert reports[1] == ("/data", "", False)


def test_a_manager_that_does_not_answer_is_started_again_and_busy_for_a_while(
    cluster: Cluster, reports: list
):
    watch = make(cluster, reports)
    watch.ask("/data")
    wait_until(lambda: not watch.is_busy)
    started = len(cluster.managers)
    cluster.error = RuntimeError("the actor is dead")
    wait_until(lambda: len(cluster.managers) > started + 2)
    assert watch.is_busy
    assert not watch.is_idle_now(0.1)
    cluster.error = None
    wait_until(lambda: not watch.is_busy)
    assert reports == [("/data", "", False)]


def test_a_caller_is_told_that_a_manager_which_was_up_can_not_be_started_again(
    cluster: Cluster, reports: list
):
    watch = make(cluster, reports, doubt_s=0.5)
    watch.ask("/data")
    wait_until(lambda: not watch.is_busy)
    cluster.error = OSError("the storage is away")
    watch.ask("/data")
    wait_until(lambda: reports[-1][:2] == ("/data", "the storage is away."))
    assert watch.is_busy
    wait_until(lambda: not watch.is_busy)  # for so long it is in doubt


def test_doubt_has_an_end(cluster: Cluster, reports: list):
    cluster.may_start.clear()
    watch = make(cluster, reports, doubt_s=0.3)
    watch.ask("/data")
    assert watch.is_busy
    wait_until(lambda: not watch.is_busy)
    assert watch.is_idle_now(5)


def test_after_its_end_it_looks_no_more(cluster: Cluster, reports: list):
    watch = make(cluster, reports)
    watch.ask("/data")
    wait_until(lambda: cluster.looks)
    watch.close()
    wait_until(lambda: not watch.is_running)
    looks = cluster.looks
    assert not watch.is_idle_now(0.1)
    assert cluster.looks == looks
