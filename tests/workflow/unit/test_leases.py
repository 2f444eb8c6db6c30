"""A lease is alive until its time is over, or its process is known to have ended."""

import json
import os
import subprocess
from dataclasses import replace

import pytest

from airflow_provider_rayworkflow.workflow.storage.leases import Lease, Process

NOW = 1_700_000_000.0
ELSEWHERE = Process(host="other", machine="another boot/1", pid=1, started="7")


def lease(process: Process, **changes: object) -> Lease:
    return Lease(manager_id="m", actor_id="a", process=process, renewed_at=NOW, **changes)


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
