"""Ray's start in the task process is patient, and leaves the process as it was."""

import os
import signal
import subprocess
import sys

import pytest

from airflow_provider_rayworkflow.clusters import local
from airflow_provider_rayworkflow.connection.settings import ConnectionSettings
from airflow_provider_rayworkflow.exceptions import RayWorkflowUnreachableError


@pytest.fixture
def starts(monkeypatch):
    """Instead of Ray's start: what it would see, and the errors that it is to raise."""
    seen, errors = [], []

    def start(settings, runtime_env):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray puts a handler of its own there
        seen.append((os.getpgrp(), os.environ["PYTHONPATH"].split(os.pathsep)))
        if errors:
            raise errors.pop()

    monkeypatch.setattr(local, "_init_ray", start)
    return seen, errors


def test_a_start_that_fails_is_tried_again(starts):
    seen, errors = starts
    errors.append(Exception("The current node timed out during startup."))
    local._start_ray(ConnectionSettings())
    assert len(seen) == 2


def test_a_start_that_always_fails_is_an_error_of_ours(starts):
    seen, errors = starts
    errors.extend(Exception("timed out") for _ in range(9))
    with pytest.raises(RayWorkflowUnreachableError, match=r"did not start .*: timed out"):
        local._start_ray(ConnectionSettings())
    assert len(seen) == 3


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_as_before_when_ray_has_started(starts, fails: bool):
    def state():
        return signal.getsignal(signal.SIGTERM), os.getpgrp(), os.environ.get("PYTHONPATH")

    before = state()
    if fails:
        starts[1].append(Exception("timed out"))
    local._start_ray(ConnectionSettings())
    assert state() == before


def test_rays_workers_can_import_what_this_process_can(starts):
    local._start_ray(ConnectionSettings())
    ((_, python_path),) = starts[0]
    assert python_path == [path for path in sys.path if path]


def test_ray_is_in_another_process_group_than_what_airflow_kills():
    """In a process that is no leader of a session, as the tasks of Airflow are."""
    code = (
        "import os\n"
        "from airflow_provider_rayworkflow.clusters import local\n"
        "os.setpgid(0, 0)\n"
        "with local._starting_in_another_group():\n"
        "    print(os.getpgrp() != os.getpid())\n"
        "print(os.getpgrp() == os.getpid())\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.PIPE, text=True
    )
    assert answer.stdout.split() == ["True", "True"]


@pytest.mark.parametrize(
    ("given", "makes_one"),
    [({}, True), ({"RAY_AUTH_TOKEN": "given"}, False), ({"RAY_AUTH_MODE": "disabled"}, False)],
)
def test_ray_gets_a_token_of_its_own_where_the_user_has_none(
    starts, monkeypatch, tmp_path, given: dict[str, str], makes_one: bool
):
    """So nothing is written into the user's home."""
    for name in [name for name in os.environ if name.startswith("RAY_AUTH")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    local._start_ray(ConnectionSettings())
    made = os.environ["RAY_AUTH_TOKEN"]
    assert (len(made) == 64) is makes_one
    local._start_ray(ConnectionSettings())
    assert os.environ["RAY_AUTH_TOKEN"] == made
    assert list(tmp_path.iterdir()) == []
