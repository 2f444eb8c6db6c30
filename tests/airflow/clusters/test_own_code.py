"""What a try without a cluster says of the code that its workflow's tasks import."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.clusters.own_code import can_be_of_all, with_code_of_this_process
from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.workflow.model.code_variables import CODE_VARIABLE


def own() -> list[str]:
    return [path for path in sys.path if path]


def test_workers_import_what_this_process_can():
    made = with_code_of_this_process({"env_vars": {"A": "b"}, "pip": ["x"]})
    assert made["pip"] == ["x"]
    assert made["env_vars"].keys() == {"A", "PYTHONPATH", CODE_VARIABLE}
    assert made["env_vars"]["A"] == "b"
    assert made["env_vars"]["PYTHONPATH"].split(os.pathsep) == own()


def test_a_path_of_the_authors_comes_first_and_its_files_count(tmp_path: Path):
    """Else a worker that has imported its module goes on with that after a change."""
    given = {"env_vars": {"PYTHONPATH": str(tmp_path)}}
    before = with_code_of_this_process(given)["env_vars"]
    assert before["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), *own()]
    (tmp_path / "module.py").write_text("A = 1")
    assert with_code_of_this_process(given)["env_vars"][CODE_VARIABLE] != before[CODE_VARIABLE]


def test_workers_have_another_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lib").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["lib", "hook.of.some.finder", *sys.path])
    paths = with_code_of_this_process(None)["env_vars"]["PYTHONPATH"].split(os.pathsep)
    assert paths[:2] == [str(tmp_path / "lib"), "hook.of.some.finder"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("text", "runtime_env must be a dict, not a str"),
        ({"env_vars": ["A"]}, r"runtime_env\['env_vars'\] must be a dict"),
        ({"env_vars": {"PIN": 123456}}, r"\['env_vars'\]\['PIN'\] must be a text, not of type int"),
    ],
)
def test_an_environment_of_another_form_is_refused_without_its_values(wrong: object, message: str):
    with pytest.raises(RayWorkflowInputError, match=message) as error:
        with_code_of_this_process(wrong)
    assert "123456" not in str(error.value)


def test_ray_itself_gets_no_path_on_which_an_authors_folder_comes_before_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A module of that folder may have the name of one that Ray imports."""
    scripts, python = sysconfig.get_path("scripts"), sysconfig.get_path("stdlib")
    monkeypatch.setenv("PYTHONPATH", "/deployed")
    monkeypatch.setattr(sys, "path", ["", scripts, "/deployed", python, str(tmp_path)])
    assert can_be_of_all(None)
    assert can_be_of_all({"env_vars": {"A": "b"}})
    assert not can_be_of_all({"env_vars": {"PYTHONPATH": "/vendor"}})
    monkeypatch.setattr(sys, "path", [str(tmp_path), python])
    assert not can_be_of_all(None)
