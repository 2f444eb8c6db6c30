"""The local Ray's workers import the code as it is now: a variable changes with every file of it."""

from __future__ import annotations

import os
import sys
import sysconfig
import types
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow.local_ray.code_files import code_state, with_files_of_now
from airflow_provider_rayworkflow.workflow.model.code_variables import (
    ARCHIVES_VARIABLE,
    CODE_VARIABLE,
    PATH_VARIABLE,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("A = 1\n")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def edit(folder: Path) -> None:
    (folder / "package" / "module.py").write_text("A = 2\n")


def edit_in_the_same_moment(folder: Path) -> None:
    """As an editor does that writes another file and renames it, and sets its times."""
    path = folder / "package" / "module.py"
    found = path.stat()
    new = path.with_suffix(".new")
    new.write_text("A = 2\n")
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
    new.replace(path)


def add(folder: Path) -> None:
    (folder / "package" / "other.py").write_text("")


def delete(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize("change", [edit, edit_in_the_same_moment, add, delete])
def test_every_change_of_a_file_changes_it(folder: Path, change):
    before = code_state([str(folder)])
    assert code_state([str(folder), str(folder)]) == before
    change(folder)
    assert code_state([str(folder)]) != before


def test_a_linked_folder_counts_and_a_link_in_a_circle_ends(folder: Path, tmp_path_factory):
    shared = tmp_path_factory.mktemp("shared")
    (shared / "module.py").write_text("A = 1\n")
    (folder / "shared").symlink_to(shared)
    (folder / "package" / "around").symlink_to(folder)
    (shared / "itself").symlink_to(shared)
    before = code_state([str(folder)])
    assert code_state([str(folder)]) == before
    (shared / "module.py").write_text("A = 22\n")
    assert code_state([str(folder)]) != before


def test_what_python_writes_changes_nothing(folder: Path):
    before = code_state([str(folder)])
    (folder / "package" / "__pycache__").mkdir()
    (folder / "package" / "__pycache__" / "module.pyc").write_text("x")
    assert code_state([str(folder)]) == before


@pytest.mark.parametrize("name", [".git", "node_modules", "package/__pycache__", "package/.git"])
def test_folders_of_tools_change_nothing(folder: Path, name: str):
    before = code_state([str(folder)])
    (folder / name).mkdir()
    (folder / name / "module.py").write_text("A = 1\n")
    assert code_state([str(folder)]) == before


@pytest.mark.parametrize("name", [".venv", "env-3.11", "package/venv"])
def test_a_virtual_environment_in_a_project_is_not_looked_through(folder: Path, name: str):
    """It has tens of thousands of files: with them, no worker would ever be used twice."""
    before = code_state([str(folder)])
    packages = folder / name / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "module.py").write_text("A = 1\n")
    assert code_state([str(folder)]) != before
    (folder / name / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert code_state([str(folder)]) == before
    # A project may be an environment itself, or one be on the path: what is imported from there counts.
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert code_state([str(folder)]) != before
    own = code_state([str(packages)])
    (packages / "module.py").write_text("A = 22\n")
    assert code_state([str(packages)]) != own


def test_pythons_own_packages_below_a_project_are_not_looked_through(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """As where the project is the virtual environment itself."""
    before = code_state([str(folder)])
    packages = folder / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "module.py").write_text("A = 1\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(packages))
    assert code_state([str(folder)]) == before


def test_the_environment_of_python_is_not_looked_through():
    paths = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]
    assert code_state(paths, most_files=0) == code_state([])


def test_a_dags_folder_below_pythons_prefix_is_looked_through(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """As in images that have Airflow's home in /usr/local."""
    monkeypatch.setattr(sys, "prefix", str(folder.parent))
    before = code_state([str(folder)])
    edit(folder)
    assert code_state([str(folder)]) != before


def test_where_there_are_too_many_files_no_worker_is_shared(folder: Path):
    paths = [str(folder)]
    assert code_state(paths, most_files=1) != code_state(paths, most_files=1)
    assert code_state(paths, most_files=2) == code_state(paths, most_files=2)


def test_a_package_that_is_installed_to_be_edited_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """As setuptools does it where a project's folder is not to be on the path as a whole."""
    finder = types.ModuleType("__editable___project_1_0_finder")
    exec("class Finder:\n    @classmethod\n    def find_spec(cls, *_): ...\n", finder.__dict__)
    finder.MAPPING = {"package": str(folder / "package")}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, finder.__name__, finder)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder.Finder])
    before = code_state([])
    edit(folder)
    assert code_state([]) != before


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path):
    assert code_state([str(tmp_path / "none")]) == code_state([])


def test_what_a_stored_graph_says_of_its_files_is_as_they_are_now(folder: Path):
    paths = [str(folder), str(folder / "package")]
    stored = {CODE_VARIABLE: code_state(paths), PATH_VARIABLE: os.pathsep.join(paths)}
    assert with_files_of_now(stored) == stored
    edit(folder)
    assert with_files_of_now(stored) == stored | {CODE_VARIABLE: code_state(paths)}
    assert with_files_of_now(stored) != stored


@pytest.mark.parametrize("code", [{}, {ARCHIVES_VARIABLE: "{}"}])
def test_code_that_is_in_no_local_files_stays_as_it_was_stored(code: dict[str, str]):
    assert with_files_of_now(code) == code
