"""What of a runtime environment is local goes along as archives; all else stays as it is."""

from __future__ import annotations

import io
import types
import zipfile
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.clusters.archives import with_archives
from airflow_provider_rayworkflow.exceptions import RayWorkflowInputError
from airflow_provider_rayworkflow.workflow.storage.archives import Archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "flights"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "data" / "large.csv").write_text("1")
    (folder / "notes.txt").write_text("")
    return folder


def names(archive: Archive) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(archive.data)).namelist()


@pytest.mark.parametrize("given", [None, {}])
def test_without_an_environment_nothing_is_packed(given):
    packed = with_archives(given)
    assert (packed.runtime_env, packed.archives) == ({}, [])


def test_local_folders_become_references(folder):
    given = {
        "working_dir": str(folder),
        "py_modules": [folder, "s3://bucket/other.zip"],
        "env_vars": {"A": "1"},
        "pip": ["numpy"],
    }
    packed = with_archives(given)
    working_dir, module = packed.archives
    assert packed.runtime_env == {
        "working_dir": {"archive": working_dir.sha256},
        "py_modules": [{"archive": module.sha256}, "s3://bucket/other.zip"],
        "env_vars": {"A": "1"},
        "pip": ["numpy"],
    }
    assert names(working_dir) == ["__init__.py", "data/large.csv", "notes.txt"]
    assert names(module)[0] == "flights/__init__.py"
    assert given["working_dir"] == str(folder)  # the author's own dict is left alone
    assert with_archives(packed.runtime_env).runtime_env == packed.runtime_env


def test_what_patterns_exclude_is_left_out(folder):
    (folder / ".gitignore").write_text("*.txt\n")
    packed = with_archives({"working_dir": str(folder), "excludes": ["data/"]})
    assert names(packed.archives[0]) == [".gitignore", "__init__.py"]
    assert "excludes" not in packed.runtime_env


def test_a_module_may_be_a_file_or_an_imported_one(tmp_path, folder):
    single = tmp_path / "single.py"
    single.write_text("x = 1")
    module = types.ModuleType("flights")
    module.__path__ = [str(folder)]
    packed = with_archives({"py_modules": [str(single), module]})
    assert [names(archive)[0] for archive in packed.archives] == [
        "single.py",
        "flights/__init__.py",
    ]


def test_a_wheel_goes_along_as_it_is(tmp_path):
    wheel = tmp_path / "tool-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tool.py", "x = 1")
    packed = with_archives({"py_modules": [str(wheel)]})
    assert packed.archives[0].data == wheel.read_bytes()


def test_a_requirements_file_is_read(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("numpy\n\npandas>=2\n")
    wanted = ["numpy", "pandas>=2"]
    packed = with_archives({"pip": str(path), "uv": {"packages": str(path), "uv_version": "==1"}})
    assert packed.runtime_env == {
        "pip": wanted,
        "uv": {"packages": wanted, "uv_version": "==1"},
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"working_dir": "/no/such/folder"}, "nothing is there on this machine"),
        ({"working_dir": 1}, "must be a path or a URI"),
        ({"py_modules": "lib"}, "must be a list of paths or URIs"),
        ({"py_modules": [None]}, "must be a path or a URI"),
        ({"excludes": "data"}, "must be a list of patterns"),
        ({"pip": "/no/such/file"}, "can't be read"),
        ({"env_vars": {"SECRET": object()}}, r"\['env_vars'\]\['SECRET'\] must be a text"),
        ({"config": {"x": object()}}, r"runtime_env\['config'\] must be JSON"),
    ],
)
def test_what_can_not_go_along_is_refused(given, message):
    with pytest.raises(RayWorkflowInputError, match=message):
        with_archives(given)


def test_an_unsafe_zip_is_refused(tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../out.py", "")
    with pytest.raises(RayWorkflowInputError, match=r"bad\.zip.*leads out"):
        with_archives({"working_dir": str(path)})
