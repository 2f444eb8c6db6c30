"""What a connection asks of the local Ray. A stand-in takes the place of Ray."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest
from local_rays import Machine, is_gone
from waiting import wait_until

from airflow_provider_rayworkflow.clusters.local_ray import LocalRay
from airflow_provider_rayworkflow.connection.settings import ConnectionSettings
from airflow_provider_rayworkflow.exceptions import (
    RayWorkflowStorageError,
    RayWorkflowUnreachableError,
)
from airflow_provider_rayworkflow.workflow.local_ray.environment import (
    FOLDER_VARIABLE,
    environment_name,
    state_root,
)
from airflow_provider_rayworkflow.workflow.local_ray.launch import Launcher
from airflow_provider_rayworkflow.workflow.local_ray.overview import list_local_rays
from airflow_provider_rayworkflow.workflow.model.code_variables import base_code

STAND_IN = "stand_in_ray:StandIn"


@pytest.fixture
def made(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(FOLDER_VARIABLE, machine.root)
    rays: list[LocalRay] = []

    def make(storage: str = "/data", **settings: object) -> LocalRay:
        make_launcher = partial(Launcher, cluster=STAND_IN)
        ray = LocalRay(ConnectionSettings(**settings), storage, make_launcher=make_launcher)
        rays.append(ray)
        return ray

    yield make
    for ray in rays:
        ray.close()


def test_a_try_gets_a_manager_of_the_size_that_its_connection_says(machine: Machine, made):
    ray = made(num_cpus=3, num_gpus=1, local_idle_s=0.5)
    cluster_id = ray.ensure()
    (shown,) = list_local_rays(machine.root)
    assert shown.state is not None
    assert shown.state.cluster_id == cluster_id
    assert (shown.state.size.num_cpus, shown.state.size.num_gpus) == (3, 1)
    assert shown.folder.name == environment_name()
    ray.close()
    pid = shown.state.process.pid
    wait_until(lambda: is_gone(pid))
    assert ray.ensure() != cluster_id


def test_the_code_of_the_first_workflow_is_that_of_all_processes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(FOLDER_VARIABLE, machine.root)
    paths = os.pathsep.join(["/dags", *filter(None, sys.path)])
    code = {"RAYWORKFLOW_CODE": "1", "PYTHONPATH": paths}
    launcher = partial(Launcher, cluster=STAND_IN)
    ray = LocalRay(ConnectionSettings(), "/data", code=code, make_launcher=launcher)
    ray.ensure()
    variables = psutil.Process(machine.starts[0]).environ()
    ray.close()
    assert base_code(variables) == code
    assert variables["PYTHONPATH"].startswith(paths)
    assert "RAYWORKFLOW_CODE" not in variables


def test_connections_with_different_signing_secrets_share_no_ray(machine: Machine, made):
    plain, signed = made(), made(signing_secret="secret of one")
    assert plain.ensure() != signed.ensure()
    variables = [psutil.Process(pid).environ() for pid in machine.starts]
    assert [one.get("RAY_WORKFLOW_SIGNING_KEY") for one in variables] == [None, "secret of one"]
    assert "secret" not in "".join(path.name for path in Path(machine.root).iterdir())


def test_what_fails_is_one_of_the_providers_errors(machine: Machine, made):
    machine.tell("bad-data", "no such bucket")
    with pytest.raises(RayWorkflowStorageError, match="'data': no such bucket") as lasting:
        made("data").ensure()
    machine.tell("away-data2", "no answer")
    with pytest.raises(RayWorkflowStorageError, match="'data2': no answer") as transient:
        made("data2").ensure()
    assert (lasting.value.is_transient, transient.value.is_transient) == (False, True)
    machine.tell("fail", "no memory")
    os.kill(machine.starts[0], 9)
    wait_until(lambda: is_gone(machine.starts[0]))
    with pytest.raises(RayWorkflowUnreachableError, match="does not start: no memory"):
        made().ensure()


def test_a_folder_that_can_not_be_used_is_one_of_the_providers_errors(
    made, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(FOLDER_VARIABLE, "/proc/local")
    with pytest.raises(RayWorkflowUnreachableError, match=r"/proc/local.* can't be used"):
        made().ensure()
    monkeypatch.setenv(FOLDER_VARIABLE, "local")
    with pytest.raises(RayWorkflowUnreachableError, match="Give an absolute path"):
        made().ensure()


def test_two_users_have_two_folders(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    own = state_root()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert state_root() == "/tmp/rayworkflow-12345" != own


def test_two_environments_have_two_names(monkeypatch: pytest.MonkeyPatch):
    own = environment_name()
    assert own == environment_name()
    monkeypatch.setattr(sys, "prefix", "/opt/other")
    assert environment_name() != own
    assert f"-ray{importlib.metadata.version('ray')}-" in own


def test_neither_ray_nor_a_heavy_library_is_imported():
    program = (
        "import sys, airflow_provider_rayworkflow.workflow.local_ray.visit\n"
        "import airflow_provider_rayworkflow.workflow.cli.commands.local\n"
        "print(sorted({'ray', 'pyarrow', 'airflow', 'obstore'} & sys.modules.keys()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"
