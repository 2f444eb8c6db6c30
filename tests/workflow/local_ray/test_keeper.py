"""The local Ray: started once, used by all, ended when idle; never two, and none left by a crash.

A stand-in takes the place of Ray; all processes and locks are real.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from local_rays import Machine, is_gone, lines, marked
from waiting import wait_until

from airflow_provider_rayworkflow.workflow.local_ray.errors import LocalRayError, ManagerStartError
from airflow_provider_rayworkflow.workflow.local_ray.folder import DoorBusyError
from airflow_provider_rayworkflow.workflow.local_ray.overview import end_local_ray, list_local_rays
from airflow_provider_rayworkflow.workflow.local_ray.state import ManagerReport

# ---- the start


def test_the_first_process_starts_it_and_the_next_ones_use_it(machine: Machine):
    first = machine.visit().ensure("one")
    begun = time.monotonic()
    again = machine.visit().ensure("one")
    assert time.monotonic() - begun < 1
    other = machine.visit().ensure("two")
    assert first.keeper_id == again.keeper_id == other.keeper_id
    assert machine.starts == [first.process.pid]
    assert machine.said("managers") == ["one one", "two two"]
    assert first.address == "127.0.0.1:1"


def test_processes_that_come_at_the_same_moment_start_one(machine: Machine):
    machine.tell("slow", 0.5)
    crowd = machine.visitors_start(32)
    said = lines(crowd, 32)
    assert len({one.get("keeper") for one in said}) == 1, said
    assert machine.starts == [said[0]["pid"]]
    with machine.folder().door(timeout_s=5):
        assert len(machine.folder().presences()) == 32


def test_the_keeper_is_in_a_session_of_its_own_and_no_child_of_its_starter(machine: Machine):
    read, write = os.pipe()
    os.set_inheritable(write, True)
    pid = machine.visit().ensure("one").process.pid
    assert os.getsid(pid) != os.getsid(0)
    assert psutil.Process(pid).ppid() != os.getpid()
    opened = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    assert os.readlink(f"/proc/self/fd/{write}") not in opened
    assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    os.close(read)
    os.close(write)


def test_what_deletes_old_files_from_tmp_passes_over_those_of_a_keeper(machine: Machine):
    """Locks are files of the first keeper, and so may be old when this one starts."""
    folder = machine.folder()
    folder.make()
    with folder.door(timeout_s=5):
        assert not folder.has_keeper()
    locks = [Path(folder.path, name) for name in ("keeper.lock", "door.lock")]
    for lock in locks:
        os.utime(lock, (1.0, 1.0))
    machine.visit().ensure("one")
    wait_until(lambda: all(lock.stat().st_mtime > 1.0 for lock in locks))


def test_it_outlives_the_process_that_started_it(machine: Machine):
    starter = machine.visitors_start()
    (said,) = lines(starter)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    assert machine.visit().ensure("one").keeper_id == said["keeper"]


def test_what_a_task_instance_has_in_its_environment_is_not_that_of_the_keeper(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "daily")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the caller")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    state = machine.visit().ensure("one")
    variables = psutil.Process(state.process.pid).environ()
    assert variables["AWS_REGION"] == "eu-central-1"
    assert not {"AIRFLOW_CTX_DAG_ID", "RAY_AUTH_TOKEN"} & variables.keys()
    assert variables["RAY_AUTH_TOKEN_PATH"] == state.token_file


def test_a_start_that_fails_is_told_to_all_that_wait_and_tried_again_by_the_next(
    machine: Machine,
):
    machine.tell("slow", 1)
    machine.tell("fail", "no memory")
    crowd = machine.visitors_start(4)
    said = lines(crowd, 4)
    assert all("LocalRayError" in one["error"] and "no memory" in one["error"] for one in said)
    assert len(machine.starts) == 1
    machine.forget("fail")
    assert machine.visit().ensure("one")
    assert len(machine.starts) == 2


def test_a_cluster_that_can_not_be_imported_is_a_start_that_fails(machine: Machine):
    visit = machine.visit()
    visit._launcher = replace(visit._launcher, cluster="no_such_module:Ray")
    with pytest.raises(LocalRayError, match="no_such_module"):
        visit.ensure("one")


def test_a_python_that_can_not_start_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(LocalRayError, match="ended with 1"):
        machine.visit().ensure("one")


def test_waiting_has_an_end(machine: Machine):
    machine.tell("slow", 30)
    with pytest.raises(LocalRayError, match="not ready after 6 s: it is starting as process"):
        machine.visit(timeout_s=6).ensure("one")


def test_who_waits_is_told_for_what(machine: Machine, caplog: pytest.LogCaptureFixture):
    machine.tell("slow", 1)
    starter = machine.visitors_start()
    wait_until(lambda: machine.starts)
    with caplog.at_level(logging.INFO):
        machine.visit().ensure("one")
    assert f"Waiting for the local Ray, which process {machine.starts[0]} starts" in caplog.text
    lines(starter)


# ---- who dies


def test_a_starter_that_dies_at_the_door_lets_others_in(machine: Machine):
    machine.folder().make()
    holder = subprocess.Popen(
        ["flock", f"{machine.root}/env/door.lock", "sleep", "60"], start_new_session=True
    )
    wait_until(lambda: not _door_is_free(machine))
    crowd = machine.visitors_start(2)
    time.sleep(0.5)
    assert machine.starts == []
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    assert len({one["keeper"] for one in lines(crowd, 2)}) == 1


def _door_is_free(machine: Machine) -> bool:
    try:
        with machine.folder().door(timeout_s=0):
            return True
    except DoorBusyError:
        return False


def test_a_door_that_stays_shut_is_an_error_in_the_end(machine: Machine):
    folder = machine.folder()
    folder.make()
    with (
        folder.door(timeout_s=1),
        pytest.raises(DoorBusyError, match="fuser"),
        machine.folder().door(timeout_s=0.1),
    ):
        pass


def test_the_keeper_starts_though_its_starter_is_killed_meanwhile(machine: Machine):
    machine.tell("slow", 1.5)
    starter = machine.visitors_start()
    wait_until(lambda: machine.starts)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    assert machine.visit().ensure("one").process.pid == machine.starts[0]
    assert len(machine.starts) == 1


@pytest.mark.parametrize("after_s", [0.05, 0.2, 0.35, 0.5])
def test_a_starter_that_is_killed_at_any_moment_leaves_one_keeper_at_most(
    machine: Machine, after_s: float
):
    starter = machine.visitors_start()
    time.sleep(after_s)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    state = machine.visit().ensure("one")
    assert state.process.pid == machine.starts[-1]
    assert [pid for pid in machine.starts if not is_gone(pid)] == [state.process.pid]


def test_a_keeper_that_is_killed_is_replaced_and_nothing_of_it_stays(
    machine: Machine, caplog: pytest.LogCaptureFixture
):
    machine.tell("resists", 1)
    state = machine.visit().ensure("one")
    cluster, free = (int(machine.said(name)[0]) for name in ("processes", "free"))
    machine.forget("resists")
    os.kill(state.process.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(cluster) and is_gone(state.process.pid))
    assert not is_gone(free)
    new = machine.visit().ensure("one")
    assert new.keeper_id != state.keeper_id
    assert is_gone(free)
    assert set(marked(machine.root)) == {new.process.pid, int(machine.said("processes")[0])}
    assert f"process {state.process.pid} is gone: it has ended without a word" in caplog.text


def test_a_ray_that_dies_takes_the_keeper_along_and_is_replaced(machine: Machine):
    visit = machine.visit()
    state = visit.ensure("one")
    os.kill(int(machine.said("processes")[0]), signal.SIGKILL)
    wait_until(lambda: is_gone(state.process.pid))
    new = visit.ensure("one")
    assert new.keeper_id != state.keeper_id
    assert machine.said("managers") == ["one one", "one one"]


# ---- what an earlier boot, process or keeper has left is not believed


@pytest.mark.parametrize("kind", ["another boot", "another process with the number", "no process"])
def test_what_a_dead_keeper_has_said_is_not_believed(machine: Machine, kind: str):
    folder = machine.folder()
    state = machine.visit().ensure("one")
    for visit in machine.visits:
        visit.close()
    os.kill(state.process.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(state.process.pid))
    here = state.process
    process = {
        "another boot": replace(here, machine="of-yesterday/1/2", pid=1),
        "another process with the number": replace(here, pid=os.getpid(), started="1"),
        "no process": replace(here, pid=2**22 - 3),
    }[kind]
    old = replace(state, process=process)
    folder.write_state(old)
    folder.report_manager(ManagerReport(keeper_id=old.keeper_id, number=9, storage="one"))
    new = machine.visit().ensure("one")
    assert new.keeper_id != old.keeper_id
    assert machine.starts == [here.pid, new.process.pid]


@pytest.mark.parametrize("name", ["state.json", "managers", "failure.json"])
def test_a_damaged_document_stops_nothing(machine: Machine, name: str):
    state = machine.visit().ensure("one")
    path = Path(machine.root, "env", name)
    for file in [path] if not path.is_dir() else path.iterdir():
        file.write_text("{")
    assert machine.visit().ensure("one").keeper_id == state.keeper_id


def test_a_damaged_request_stops_nothing(machine: Machine):
    machine.visit().ensure("one")
    requests = Path(machine.root, "env", "requests")
    requests.mkdir(exist_ok=True)
    (requests / "damaged.json").write_text("{")
    machine.visit().ensure("two")
    assert list(requests.iterdir()) == []


def test_a_keeper_whose_folder_is_deleted_ends(machine: Machine):
    state = machine.visit().ensure("one")
    for path in Path(machine.root).iterdir():
        while path.exists():  # the keeper, too, deletes files and makes others
            shutil.rmtree(path, ignore_errors=True)
    wait_until(lambda: is_gone(state.process.pid))
    assert machine.said("stopped") == ["cleanly"]


# ---- its end


def test_it_ends_when_it_is_idle_and_leaves_nothing(machine: Machine):
    visit = machine.visit(idle_s=0.5)
    state = visit.ensure("one")
    time.sleep(2)
    assert not is_gone(state.process.pid)  # a process uses it
    visit.close()
    wait_until(lambda: is_gone(state.process.pid))
    assert machine.said("stopped") == ["cleanly"]
    assert marked(machine.root) == []
    left = {path.name for path in Path(machine.root, "env").rglob("*") if path.is_file()}
    assert left == {"door.lock", "keeper.lock", "keeper.log"}


def test_it_stays_as_long_as_a_workflow_is_held(machine: Machine):
    machine.tell("held-one", 1)
    visit = machine.visit(idle_s=0)
    state = visit.ensure("one")
    visit.ensure("two")
    visit.close()
    time.sleep(2.5)
    assert not is_gone(state.process.pid)
    machine.tell("held-one", 0)
    wait_until(lambda: is_gone(state.process.pid))


def test_a_process_that_dies_does_not_hold_it(machine: Machine):
    visitor = machine.visitors_start(idle_s=0)
    (said,) = lines(visitor)
    time.sleep(1.5)
    assert not is_gone(said["pid"])
    os.killpg(visitor.pid, signal.SIGKILL)
    visitor.wait()
    wait_until(lambda: is_gone(said["pid"]))


def test_how_long_it_stays_is_what_the_latest_process_wants(machine: Machine):
    long, short = machine.visit(idle_s=600), machine.visit(idle_s=0)
    state = long.ensure("one")
    short.ensure("one")
    time.sleep(1.5)  # the keeper has seen both
    long.close()
    short.close()
    wait_until(lambda: is_gone(state.process.pid))


def test_processes_that_come_while_it_ends_get_a_new_one(machine: Machine):
    """Over and over: one uses it for a moment, while it may go at any time."""
    seen = set()
    for number in range(6):
        with closing(machine.visit(idle_s=0)) as visit:
            state = visit.ensure("one")
            assert not is_gone(state.process.pid)
            seen.add(state.keeper_id)
        time.sleep(0.35 * number)
    assert len(seen) > 1
    ended = [pid for pid in machine.starts if is_gone(pid)]
    assert len(ended) >= len(machine.starts) - 1


def test_a_users_wish_ends_it_and_a_signal_too(machine: Machine):
    state = machine.visit().ensure("one")
    (shown,) = list_local_rays(machine.root)
    assert shown.state == state
    assert shown.storages == ["one"]
    assert [presence.pid for presence in shown.present] == [os.getpid()]
    assert end_local_ray(shown, timeout_s=20)
    assert is_gone(state.process.pid)
    assert list_local_rays(machine.root) == []

    state = machine.visit().ensure("one")
    os.kill(state.process.pid, signal.SIGTERM)
    wait_until(lambda: is_gone(state.process.pid))
    assert machine.said("stopped") == ["cleanly"]


def test_one_that_does_not_end_is_killed_by_a_users_wish(machine: Machine):
    machine.tell("stuck", 1)
    machine.tell("resists", 1)
    state = machine.visit().ensure("one")
    (shown,) = list_local_rays(machine.root)
    assert not end_local_ray(shown, timeout_s=1.5)
    assert is_gone(state.process.pid)
    wait_until(lambda: marked(machine.root) == [])


# ---- storages


def test_a_storage_that_fails_or_hangs_is_told_and_hinders_no_other(machine: Machine):
    machine.tell("bad-bad", "no such bucket")
    machine.tell("hangs-slow", 1)
    visit = machine.visit()
    with pytest.raises(ManagerStartError, match="workflows of 'bad': no such bucket"):
        visit.ensure("bad")
    with pytest.raises(LocalRayError, match="not ready"):
        machine.visit(timeout_s=1).ensure("slow")
    assert visit.ensure("good")
    machine.forget("bad-bad")
    machine.forget("hangs-slow")
    assert visit.ensure("bad").keeper_id == visit.ensure("slow").keeper_id


def test_what_opens_a_storage_may_be_no_name_of_it(machine: Machine):
    machine.visit().ensure("s3://bucket", "secret-location")
    assert machine.said("managers") == ["s3://bucket secret-location"]
    content = b"".join(
        path.read_bytes() for path in Path(machine.root).rglob("*") if path.is_file()
    )
    assert b"secret-location" not in content


# ---- size


def test_another_size_than_that_of_what_runs_is_told_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
):
    assert machine.visit(num_cpus=2).ensure("one").size.num_cpus == 2
    machine.visit().ensure("one")
    machine.visit(num_cpus=2, num_gpus=0).ensure("one")
    assert "holds until" not in caplog.text
    visit = machine.visit(num_cpus=4, num_gpus=1)
    visit.ensure("one")
    visit.ensure("one")
    assert caplog.text.count("num_cpus=2 (4 was asked for), num_gpus=0 (1 was asked for)") == 1


# ---- users and environments


def test_each_environment_has_its_own(machine: Machine):
    one, two = machine.visit("one").ensure("s"), machine.visit("two").ensure("s")
    assert one.keeper_id != two.keeper_id
    assert len(machine.starts) == 2
    os.kill(one.process.pid, signal.SIGTERM)
    wait_until(lambda: is_gone(one.process.pid))
    assert machine.visit("two").ensure("s").keeper_id == two.keeper_id


def test_the_folder_is_for_its_user_alone(machine: Machine):
    machine.visit().ensure("one")
    for path in [Path(machine.root), *Path(machine.root).rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_folder_of_another_user_is_refused(machine: Machine):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.mkdir(machine.root, 0o700)
    os.chown(machine.root, 65534, 65534)
    with pytest.raises(LocalRayError, match=r"belongs to user 65534.*RAY_WORKFLOW_LOCAL_FOLDER"):
        machine.visit().ensure("one")
    os.rmdir(machine.root)


def test_another_user_can_not_use_what_runs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    machine.visit().ensure("one")
    for folder in [tmp_path, *tmp_path.parents][:-2]:
        if stat.S_IMODE(folder.stat().st_mode) & 0o001 == 0:
            folder.chmod(0o711)
    monkeypatch.setenv("VISITOR_USER", "65534")
    (said,) = lines(machine.visitors_start())
    assert "is not used, because" in said["error"]
    assert len(machine.starts) == 1


def test_a_folder_that_others_may_write_to_is_refused(machine: Machine):
    os.mkdir(machine.root)
    os.chmod(machine.root, 0o777)
    with pytest.raises(LocalRayError, match="other users may write there"):
        machine.visit().ensure("one")


def test_a_link_in_the_place_of_the_folder_is_refused(machine: Machine, tmp_path: Path):
    os.symlink(tmp_path, machine.root)
    with pytest.raises(LocalRayError, match="is a link"):
        machine.visit().ensure("one")
