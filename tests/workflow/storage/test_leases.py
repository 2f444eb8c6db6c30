"""Who is dead: a process that is known to have ended, or a lease that stayed the same for its time."""

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow.storage.leases import Lease, LeaseWatch, Process, Tenure

NOW = 1_700_000_000.0
ELSEWHERE = Process(host="other", machine="another boot/1", pid=1, started="7")


def lease(process: Process, **changes: object) -> Lease:
    values = {"manager_id": "m", "actor_id": "a", "process": process, "renewed_at": NOW}
    return Lease(**values | changes)


def first_look(one: Lease, now: float = NOW) -> str:
    return LeaseWatch(Clock()).judge(one, now)


@pytest.mark.invariant(3)
@pytest.mark.parametrize("step_s", [-1e9, -3600, -400, -20, 0, 14, 16, 20, 400, 3600, 1e9])
@pytest.mark.parametrize("process", [Process.current(), ELSEWHERE], ids=["here", "elsewhere"])
def test_a_first_look_never_takes_a_process_for_dead_by_the_clock(process: Process, step_s: float):
    assert first_look(lease(process), NOW + step_s) != "dead"


@pytest.mark.parametrize(
    ("passed_s", "shown"), [(0, "alive"), (14, "alive"), (16, "doubtful"), (-16, "doubtful")]
)
@pytest.mark.parametrize("process", [Process.current(), ELSEWHERE], ids=["here", "elsewhere"])
def test_one_look_shows_what_the_clock_says(process: Process, passed_s: float, shown: str):
    assert first_look(lease(process), NOW + passed_s) == shown


def test_a_lease_may_have_another_duration():
    assert first_look(lease(ELSEWHERE, ttl_s=60), NOW + 59) == "alive"
    assert first_look(lease(ELSEWHERE, ttl_s=60), NOW + 61) == "doubtful"


def test_the_lease_of_a_process_that_ended_on_this_machine_is_dead_at_once():
    child = subprocess.Popen(["sleep", "60"])
    process = of_child(child)
    assert first_look(lease(process)) == "alive"
    child.kill()
    child.wait()
    assert first_look(lease(process)) == "dead"


def test_a_zombie_is_a_process_that_ended():
    child = subprocess.Popen(["sleep", "60"])
    process = of_child(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert first_look(lease(process)) == "dead"
    child.wait()


@pytest.mark.invariant(3)
def test_a_stopped_process_is_not_gone():
    child = subprocess.Popen(["sleep", "60"])
    process = of_child(child)
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    assert not process.is_gone()
    child.kill()
    child.wait()
    assert process.is_gone()


@pytest.mark.invariant(3)
def test_a_process_that_may_not_be_looked_at_is_not_gone(monkeypatch: pytest.MonkeyPatch):
    """/proc is mounted with hidepid, and the process is another user's."""
    process = Process.current()
    read = Path.read_text

    def hidden(path: Path, *given: str) -> str:
        if path.name == "stat":
            raise FileNotFoundError(path)
        return read(path, *given)

    monkeypatch.setattr(Path, "read_text", hidden)
    assert not process.is_gone()
    assert replace(process, pid=2**22 + 1).is_gone()


@pytest.mark.invariant(3)
def test_where_proc_is_of_another_namespace_no_process_is_known(monkeypatch: pytest.MonkeyPatch):
    gone = replace(Process.current(), pid=2**22 + 1)
    assert gone.is_gone()
    monkeypatch.setattr(os, "readlink", lambda path: "1")
    assert not gone.is_gone()
    assert Process.current().machine == ""


@pytest.mark.invariant(3)
@pytest.mark.parametrize("place", [1, 2], ids=["pid", "time"])
def test_a_process_of_another_namespace_is_never_known_to_have_ended(place: int):
    parts = Process.current().machine.split("/")
    parts[place] = "1"
    gone = replace(Process.current(), pid=2**22 + 1, machine="/".join(parts))
    assert not gone.is_gone()


def of_child(child: subprocess.Popen) -> Process:
    with open(f"/proc/{child.pid}/stat") as stat:
        started = stat.read().rpartition(")")[2].split()[19]
    return replace(Process.current(), pid=child.pid, started=started)


def test_another_process_with_the_same_number_is_not_the_one_of_the_lease():
    assert first_look(lease(replace(Process.current(), started="1"))) == "dead"


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
@pytest.mark.parametrize("skew_s", [-3600, -400, -20, 0, 20, 400, 3600])
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
@pytest.mark.parametrize("skew_s", [-3600, -400, -20, 0, 20, 400, 3600])
def test_a_dead_manager_is_dead_after_one_lease_time_with_each_skew_of_clocks(skew_s: float):
    clock = Clock()
    watch = LeaseWatch(clock)
    watch.judge(lease(ELSEWHERE), NOW + skew_s)
    clock.now = 14.9
    assert watch.judge(lease(ELSEWHERE), NOW + 14.9 + skew_s) != "dead"
    clock.now = 15.0
    assert watch.judge(lease(ELSEWHERE), NOW + 15 + skew_s) == "dead"


@pytest.mark.invariant(3)
def test_a_renewal_seen_after_a_long_absence_is_a_first_look():
    clock = Clock()
    watch = LeaseWatch(clock)
    watch.judge(lease(ELSEWHERE), NOW)
    clock.now = 3600.0
    assert watch.judge(lease(ELSEWHERE, renewed_at=NOW + 600), NOW + 3600) == "doubtful"
    clock.now += 15
    assert watch.judge(lease(ELSEWHERE, renewed_at=NOW + 600), NOW + 3600) == "dead"


@pytest.mark.invariant(3)
def test_a_renewal_counts_although_the_owners_clock_stands_still():
    clock = Clock()
    watch = LeaseWatch(clock)
    for second in range(60):
        clock.now = second
        assert watch.judge(lease(ELSEWHERE, renewals=second // 5), NOW) == "alive"


@pytest.mark.invariant(3)
def test_a_reader_that_was_stopped_between_reading_and_judging_has_not_watched_meanwhile():
    clock = Clock()
    watch = LeaseWatch(clock)
    watch.judge(lease(ELSEWHERE), NOW, asked_at=clock.now)
    clock.now = asked_at = 5.0
    clock.now = 600.0
    assert watch.judge(lease(ELSEWHERE), NOW + 600, asked_at=asked_at) != "dead"


# ---- the owner's side


@pytest.mark.invariant(3)
def test_an_owner_stops_before_a_reader_may_take_it_for_dead():
    clock = Clock()
    tenure, watch = Tenure(15.0, clock), LeaseWatch(clock)
    tenure.extend(clock.now)
    watch.judge(lease(ELSEWHERE), NOW)
    while not tenure.is_over:
        assert watch.judge(lease(ELSEWHERE), NOW) != "dead"
        clock.now += 0.25
    assert watch.judge(lease(ELSEWHERE), NOW) != "dead"


@pytest.mark.invariant(3)
def test_a_tenure_that_is_over_stays_over():
    clock = Clock()
    tenure = Tenure(15.0, clock)
    tenure.extend(0.0)
    clock.now = 20.0
    tenure.extend(20.0)
    assert tenure.is_over
    clock.now = 0.0
    assert tenure.is_over


def test_a_renewal_that_took_long_counts_from_its_beginning():
    clock = Clock()
    tenure = Tenure(15.0, clock)
    tenure.extend(0.0)
    clock.now = 10.0
    tenure.extend(4.0)
    assert tenure.left_s == 8.0


def test_before_the_first_renewal_nothing_is_over():
    assert not Tenure(15.0, Clock()).is_over


def test_a_damaged_lease_is_dead_when_it_was_not_written_anew_for_its_time():
    clock = Clock()
    watch = LeaseWatch(clock)
    assert watch.judge_damaged("m") == "doubtful"
    clock.now = 15.0
    assert watch.judge_damaged("m") == "dead"
