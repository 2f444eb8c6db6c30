"""``rayworkflow local``. A stand-in takes the place of Ray."""

from __future__ import annotations

import json
import os
import sys

import pytest
from local_rays import Machine, is_gone
from waiting import wait_until

from airflow_provider_rayworkflow.workflow.cli import main
from airflow_provider_rayworkflow.workflow.local_ray.environment import FOLDER_VARIABLE


@pytest.fixture(autouse=True)
def own_folder(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, machine.root)


def test_without_a_local_ray_there_is_nothing_to_show_or_end(capsys):
    assert main(["local"]) == 0
    assert capsys.readouterr().out == "No local Ray runs for this user.\n"
    assert main(["local", "stop"]) == 0
    assert capsys.readouterr().out == "0 local Rays are ended.\n"
    assert main(["local", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_it_is_shown_with_what_a_user_needs_to_use_or_mend_it(machine: Machine, capsys):
    state = machine.visit(num_cpus=2).ensure("s3://user:secret@bucket")
    assert main(["local"]) == 0
    out = capsys.readouterr().out
    shown = dict(line.split("  ", 1) for line in out.splitlines())
    shown = {name.strip(): value.strip() for name, value in shown.items()}
    assert shown["phase"] == "running"
    assert shown["process"] == str(state.process.pid)
    assert shown["size"] == "num_cpus=2, num_gpus=0, object_store_memory_mb=None"
    assert shown["address"] == "127.0.0.1:1"
    assert shown["token"] == f"{machine.root}/env/token"
    assert shown["log"] == f"{machine.root}/env/keeper.log"
    assert shown["used by"] == f"process {os.getpid()}"
    assert "secret" not in out
    assert main(["local", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["keeper"]["keeper_id"] == state.keeper_id
    assert found["storages"] == [shown["storages"]]


def test_stop_ends_that_of_this_environment_and_all_those_of_the_user(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys
):
    pid = machine.visit().ensure("one").process.pid
    with monkeypatch.context() as other:
        other.setattr(sys, "prefix", "/opt/other")
        assert main(["local", "stop"]) == 0
        out = capsys.readouterr().out
        assert out == "0 local Rays are ended. 1 of other environments go on.\n"
        assert main(["local", "stop", "--all"]) == 0
    assert capsys.readouterr().out == "1 local Rays are ended.\n"
    wait_until(lambda: is_gone(pid))
    assert machine.said("stopped") == ["cleanly"]


def test_a_folder_of_another_user_is_an_error(machine: Machine, capsys):
    os.mkdir(machine.root)
    os.chmod(machine.root, 0o777)
    assert main(["local"]) == 1
    assert "other users may write there" in capsys.readouterr().err
