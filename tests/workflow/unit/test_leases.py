"""A lease is alive until its time is over, or its process is known to have ended."""

import json
import os
import subprocess
from dataclasses import replace

import pytest

from airflow_provider_rayworkflow.workflow.storage.leases import Lease, LeaseWatch, Process

NOW = 1_700_000_000.0
ELSEWHERE = Process(host="other", machine="another boot/1", pid=1, started="7")


def lease(process: Process, **changes: object) -> Lease:
    values = {"manager_id": "m", "actor_id": "a", "process": process, "renewed_at": NOW}
    return Lease(**values | changes)


@pytest.mark.parametrize(
    ("passed_s", "is_alive"), [(0, True), (14.9, True), (15.0, False), (1e6, False), (-60, True)]
)
@pytest.mark.parametrize("process", [Process.current(), ELSEWHERE], ids=["here", "elsewhere"])
def test_a_lease_lasts_fifteen_seconds(process: Process, passed_s: float, is_alive: bool):
    assert lease(process).is_alive(NOW + passed_s) is is_alive


def test_a_lease_may_have_another_duration():
    assert lease(ELSEWHERE, ttl_s=60).is_alive(NOW + 59)
    assert not lease(ELSEWHERE, ttl_s=60).is_alive(NOW + 60)


def test_a_renewed_lease_lasts_from_then_on():
    assert replace(lease(ELSEWHERE), renewed_at=NOW + 10).is_alive(NOW + 24)


def test_the_lease_of_a_process_that_ended_on_this_machine_is_dead_at_once():
    child = subprocess.Popen(["sleep", "60"])
    process = of_child(child)
    assert lease(process).is_alive(NOW)
    child.kill()
    child.wait()
    assert not lease(process).is_alive(NOW)


def test_a_zombie_is_a_process_that_ended():
    child = subprocess.Popen(["sleep", "60"])
    process = of_child(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not lease(process).is_alive(NOW)
    child.wait()


def of_child(child: subprocess.Popen) -> Process:
    with open(f"/proc/{child.pid}/stat") as stat:
        started = stat.read().rpartition(")")[2].split()[19]
    return replace(Process.current(), pid=child.pid, started=started)


def test_another_process_with_the_same_number_is_not_the_one_of_the_lease():
    assert not lease(replace(Process.current(), started="1")).is_alive(NOW)


def test_a_process_of_another_machine_or_boot_is_never_known_to_have_ended():
    gone = replace(Process.current(), pid=2**22 + 1, started="1")
    assert gone.is_gone()
    assert not replace(gone, machine="another boot/1").is_gone()
    assert not replace(gone, machine="").is_gone()


def test_a_lease_comes_back_from_json():
    one = lease(Process.current(), package_version="1.0", limits={"max_running": 3})
    assert Lease.from_json(json.loads(json.dumps(one.to_json()))) == one


# ---- clocks that differ


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.invariant(3)
@pytest.mark.parametrize("skew_s", [-200, -20, 0, 20, 200])
def test_a_living_manager_is_never_dead_to_one_with_another_clock(skew_s: float):
    clock = Clock()
    watch = LeaseWatch(clock)
    for second in range(100):  # looks every second, renewals every five
        clock.now = second
        renewed = lease(ELSEWHERE, renewed_at=NOW + second // 5 * 5)
        assert watch.judge(renewed, NOW + second + skew_s) != "dead"
        if second >= 5:
            assert watch.judge(renewed, NOW + second + skew_s) == "alive"


@pytest.mark.invariant(3, 4)
@pytest.mark.parametrize("skew_s", [-200, -20, 0, 20, 200])
def test_a_dead_manager_is_dead_after_one_lease_time_whatever_the_clocks_say(skew_s: float):
    clock = Clock()
    watch = LeaseWatch(clock)
    watch.judge(lease(ELSEWHERE), NOW + skew_s)
    clock.now = 14.9
    assert watch.judge(lease(ELSEWHERE), NOW + 14.9 + skew_s) != "dead"
    clock.now = 15.0
    assert watch.judge(lease(ELSEWHERE), NOW + 15 + skew_s) == "dead"


def test_what_expired_a_moment_ago_by_our_clock_only_is_doubtful():
    watch = LeaseWatch(Clock())
    assert watch.judge(lease(ELSEWHERE), NOW + 16) == "doubtful"
    assert watch.is_doubtful("m")
    assert watch.judge(lease(ELSEWHERE), NOW + 400) == "dead"
    assert not watch.is_doubtful("m")
    assert not watch.is_doubtful("nobody")


def test_on_one_machine_there_is_one_clock():
    assert LeaseWatch(Clock()).judge(lease(Process.current()), NOW + 16) == "dead"


def test_a_renewal_seen_after_a_long_absence_says_nothing():
    clock = Clock()
    watch = LeaseWatch(clock)
    watch.judge(lease(ELSEWHERE), NOW)
    clock.now = 3600.0
    assert watch.judge(lease(ELSEWHERE, renewed_at=NOW + 600), NOW + 3600) == "dead"


def test_a_damaged_lease_is_dead_when_nobody_has_written_it_anew_for_its_time():
    clock = Clock()
    watch = LeaseWatch(clock)
    assert watch.judge_damaged("m") == "doubtful"
    clock.now = 15.0
    assert watch.judge_damaged("m") == "dead"
