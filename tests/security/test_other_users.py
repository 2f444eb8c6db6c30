"""Another user of the same machine, who was there first or may write where this one does."""

from __future__ import annotations

import os
import stat

import pytest
from users import ATTACKER, VICTIM, Users

ROOT = "/tmp/ray/workflow_data"

#: A workflow whose output runs code in the process of a reader who loads it. Open to all users.
PLANT = """
import os, sys
from airflow_provider_rayworkflow.workflow import testing
import ray

class Trap:
    def __reduce__(self):
        return os.system, ("touch /tmp/sprung-by-$(id -u)",)

@ray.remote
def trap():
    return Trap()

with testing.in_process(sys.argv[1]) as workflows:
    workflows.run(trap.bind(), workflow_id="planted")
for folder, _, files in os.walk(os.path.dirname(sys.argv[1])):
    os.chmod(folder, int(sys.argv[2], 8))
    for file in files:
        os.chmod(os.path.join(folder, file), 0o666)
"""
READ = """
import sys
from airflow_provider_rayworkflow.workflow import testing

with testing.in_process(sys.argv[1]) as workflows:
    print(workflows.get_output("planted"))
"""
RUN = """
import sys
from airflow_provider_rayworkflow.workflow import testing
import ray

@ray.remote
def large():
    return list(range(200_000))

with testing.in_process(sys.argv[1]) as workflows:
    workflows.run(large.bind(), workflow_id="mine")
"""
USE_LOCAL_RAY = """
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.local_ray.environment import state_root
from airflow_provider_rayworkflow.workflow.local_ray.folder import StateFolder
from airflow_provider_rayworkflow.workflow.local_ray.launch import Launcher
from airflow_provider_rayworkflow.workflow.local_ray.visit import LocalRayVisit

folder = StateFolder(state_root(), "environment")
visit = LocalRayVisit(folder, size=Size(), idle_s=0.0, launcher=Launcher(), timeout_s=10.0)
visit.ensure("/tmp/storage")
"""


def run(users: Users, user: int, code: str, *arguments: str, umask: int = 0o022) -> None:
    done = users.run(user, code, *arguments, umask=umask)
    assert done.returncode == 0, done.stderr


def modes(users: Users, folder: str) -> set[tuple[str, int]]:
    """The modes of files and folders below a folder of theirs, and its own."""
    top = users.tmp / folder
    return {
        ("folder" if path.is_dir() else "file", stat.S_IMODE(path.lstat().st_mode))
        for path in (top, *top.rglob("*"))
    }


@pytest.mark.parametrize("mode", ["0777", "0755"])
def test_a_default_root_that_another_user_made_is_refused_before_anything_is_read(
    users: Users, mode: str
):
    run(users, ATTACKER, PLANT, ROOT, mode)
    before = modes(users, "ray")
    listed = users.command(VICTIM, "list")
    assert (listed.returncode, listed.stdout) == (1, "")
    assert f"belongs to user {ATTACKER}" in listed.stderr
    assert "RAY_WORKFLOW_STORAGE" in listed.stderr
    for arguments in (
        ["output", "planted"],
        ["prune", "--older-than", "0s"],
    ):
        assert users.command(VICTIM, *arguments).returncode == 1
    for program in (READ, RUN):
        done = users.run(VICTIM, program, ROOT)
        assert "belongs to user" in done.stderr
    assert not (users.tmp / f"sprung-by-{VICTIM}").exists()
    assert modes(users, "ray") == before


def test_a_planted_journal_springs_where_the_root_is_named(users: Users):
    # So the test above tests something: a root that is named is trusted.
    run(users, ATTACKER, PLANT, "/tmp/shared/root", "0777")
    users.run(VICTIM, READ, "/tmp/shared/root")
    assert (users.tmp / f"sprung-by-{VICTIM}").exists()


@pytest.mark.parametrize("mode", [0o775, 0o702, 0o1777])
def test_a_default_root_that_others_may_write_to_is_refused(users: Users, mode: int):
    run(users, VICTIM, RUN, ROOT)
    (users.tmp / "ray/workflow_data").chmod(mode)
    listed = users.command(VICTIM, "list")
    assert (listed.returncode, listed.stdout) == (1, "")
    assert "other users may write there" in listed.stderr
    assert "other users may write there" in users.run(VICTIM, RUN, ROOT).stderr


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("ray", "home-60002"),  # the user's own folder, in which a root would be made
        ("ray/workflow_data", "home-60002"),
        ("ray/workflow_data", "planted/workflow_data"),
        ("ray", "planted"),
    ],
)
def test_a_link_in_the_place_of_the_default_root_is_refused(users: Users, link: str, target: str):
    run(users, ATTACKER, PLANT, "/tmp/planted/workflow_data", "0777")
    make = "import os, sys; os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True); os.symlink(sys.argv[2], sys.argv[1])"
    run(users, ATTACKER, make, f"/tmp/{link}", f"/tmp/{target}")
    for done in (
        users.command(VICTIM, "list"),
        users.run(VICTIM, READ, ROOT),
        users.run(VICTIM, RUN, ROOT),
    ):
        assert done.returncode == 1
        assert "is a link or a file" in done.stderr
    assert not (users.tmp / f"sprung-by-{VICTIM}").exists()
    assert os.listdir(users.tmp / f"home-{VICTIM}") == ["precious"]


def test_a_default_root_is_used_by_its_user_alone_and_others_make_their_own_storage(users: Users):
    run(users, VICTIM, RUN, ROOT, umask=0)
    assert modes(users, "ray/workflow_data") == {("folder", 0o700), ("file", 0o600)}
    assert stat.S_IMODE((users.tmp / "ray").stat().st_mode) == 0o1777  # Ray of others starts there
    assert "SUCCESSFUL" in users.command(VICTIM, "list").stdout
    assert "is closed to this user" in users.command(ATTACKER, "list").stderr


def test_a_default_root_that_others_may_read_is_closed_to_them(users: Users):
    run(users, VICTIM, RUN, ROOT)
    (users.tmp / "ray/workflow_data").chmod(0o755)
    run(users, VICTIM, RUN.replace('"mine"', '"more"'), ROOT)
    assert stat.S_IMODE((users.tmp / "ray/workflow_data").stat().st_mode) == 0o700


def test_two_users_share_a_root_that_is_named(users: Users):
    share(users)
    assert modes(users, "share/root") == {("folder", 0o777), ("file", 0o666)}
    listed = users.command(VICTIM, "list", "--storage", "/tmp/share/root")
    assert (listed.returncode, listed.stdout.split()) == (
        0,
        ["WORKFLOW", "STATUS", "EPOCH", "mine", "SUCCESSFUL", "1"],
    )
    assert "chmod o-w /tmp/share/root" in listed.stderr
    pruned = users.command(VICTIM, "prune", "--older-than", "0s", "--storage", "/tmp/share/root")
    assert pruned.returncode == 0, pruned.stderr
    assert "1 workflows are pruned" in pruned.stdout


def test_a_named_root_goes_by_the_umask(users: Users):
    run(users, VICTIM, RUN, f"/tmp/home-{VICTIM}/root", umask=0o027)
    assert modes(users, f"home-{VICTIM}/root") == {("folder", 0o750), ("file", 0o640)}


@pytest.mark.parametrize("where", ["v1", "v1/workflows", "v1/status", "v1/workflows/mine"])
def test_prune_deletes_nothing_behind_a_link(users: Users, where: str):
    share(users)
    away = users.tmp / f"home-{VICTIM}" / "documents"
    (users.tmp / "share/root" / where).rename(away)
    kept = sorted(away.rglob("*"))
    link = "import os, sys; os.symlink(*sys.argv[1:])"
    run(users, ATTACKER, link, f"/tmp/home-{VICTIM}/documents", f"/tmp/share/root/{where}")
    pruned = users.command(VICTIM, "prune", "--older-than", "0s", "--storage", "/tmp/share/root")
    assert pruned.returncode == 1
    assert "no link below the storage is followed" in pruned.stderr
    assert sorted(away.rglob("*")) == kept


def share(users: Users) -> None:
    (users.tmp / "share").mkdir()
    (users.tmp / "share").chmod(0o777)
    run(users, ATTACKER, RUN, "/tmp/share/root", umask=0)


@pytest.mark.parametrize("what", ["a FIFO", "a socket", "a link", "a folder"])
def test_a_path_of_a_status_that_is_no_file_is_neither_read_nor_waited_for(users: Users, what: str):
    make = {
        "a FIFO": "os.mkfifo(path)",
        "a socket": "import socket; socket.socket(socket.AF_UNIX).bind(path)",
        "a link": f"os.symlink('/tmp/home-{VICTIM}/precious', path)",
        "a folder": "os.mkdir(path)",
    }[what]
    share(users)
    replace = (
        "import glob, os; [path] = glob.glob('/tmp/share/root/v1/status/mine/*'); "
        f"os.unlink(path); os.chdir(os.path.dirname(path)); path = os.path.basename(path); {make}"
    )
    run(users, ATTACKER, replace)
    status = users.command(VICTIM, "status", "mine", "--storage", "/tmp/share/root")
    assert status.returncode == 1
    assert "the only copy" not in status.stdout + status.stderr


@pytest.mark.parametrize(
    ("path", "mode", "what"),
    [
        ("v1/status/bad", 0o000, "'v1/status/bad': Permission denied"),
        ("v1/status/bad/*.json", 0o000, "v1/status/bad/"),
        ("v1/workflows/bad", 0o000, "v1/workflows/bad"),
        ("v1/workflows/bad", 0o555, "v1/workflows/bad"),
    ],
)
def test_a_path_that_this_user_may_not_touch_is_named_and_the_rest_is_done(
    users: Users, path: str, mode: int, what: str
):
    root = f"/tmp/home-{VICTIM}/root"
    for workflow_id in ("also mine", "bad", "mine"):
        run(users, VICTIM, RUN.replace('"mine"', repr(workflow_id)), root)
    for found in (users.tmp / root.removeprefix("/tmp/")).glob(path):
        found.chmod(mode)
    listed = users.command(VICTIM, "list", "--storage", root)
    assert "also mine" in listed.stdout
    assert "\nmine" in listed.stdout
    assert listed.returncode == 0  # a list reads no status document: the index has it
    pruned = users.command(VICTIM, "prune", "--older-than", "0s", "--storage", root)
    assert pruned.returncode == 1
    assert what in pruned.stderr
    assert "2 workflows are pruned" in pruned.stdout


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ("os.mkdir(path); os.chmod(path, 0o777)", f"it belongs to user {ATTACKER}"),
        ("os.mkdir(path); os.chmod(path, 0o755)", f"it belongs to user {ATTACKER}"),
        ("os.mkdir(path, 0o700)", "is closed to this user"),
        (f"os.symlink('/tmp/home-{VICTIM}', path)", "is a link or a file"),
        ("open(path, 'w').close()", "is a link or a file"),
    ],
    ids=["open", "readable", "closed", "link", "file"],
)
def test_what_another_user_put_in_the_place_of_the_local_rays_folder_is_refused(
    users: Users, make: str, why: str
):
    """It would have this user's tasks run in a Ray of the other one's."""
    run(users, ATTACKER, f"import os; path = '/tmp/rayworkflow-{VICTIM}'; {make}")
    for done in (
        users.command(VICTIM, "local"),
        users.command(VICTIM, "local", "stop", "--all"),
        users.run(VICTIM, USE_LOCAL_RAY),
    ):
        assert (done.returncode, done.stdout) == (1, "")
        assert "of the local Ray is not used" in done.stderr
        assert why in done.stderr
    assert os.listdir(users.tmp / f"home-{VICTIM}") == ["precious"]


def test_the_local_ray_of_one_user_is_not_that_of_another(users: Users):
    make = "import os; os.mkdir(f'/tmp/rayworkflow-{os.getuid()}', 0o700)"
    for user in (ATTACKER, VICTIM):
        run(users, user, make)
        shown = users.command(user, "local")
        assert (shown.returncode, shown.stdout) == (0, "No local Ray runs for this user.\n")
