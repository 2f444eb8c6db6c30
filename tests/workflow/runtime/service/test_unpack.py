"""Archives on a node: unpacked once, kept while a process uses them, and safe from other users."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from noting_store import NotingStore

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.model.code_variables import ARCHIVES_VARIABLE
from airflow_provider_rayworkflow.workflow.runtime.service import unpack
from airflow_provider_rayworkflow.workflow.runtime.service.unpack import (
    NodeCache,
    enter_archives,
    ray_environment,
)
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.archives import (
    Archive,
    ArchiveError,
    ArchiveStore,
    pack,
)
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore

A, B = "a" * 64, "b" * 64


@pytest.fixture
def store() -> NotingStore:
    return NotingStore()


@pytest.fixture
def archive(store: NotingStore, tmp_path: Path) -> Archive:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "an_authors_module.py").write_text("x = 42")
    packed = pack(folder)
    ArchiveStore(store).add(packed)
    store.calls.clear()
    return packed


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache")


def test_an_archive_is_unpacked_once(store, archive, cache, tmp_path):
    archives = ArchiveStore(store)
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(lambda _: cache.get(archives, archive.sha256), range(8)))
    assert store.count("get") == 1
    (folder,) = found
    assert (folder / "an_authors_module.py").read_text() == "x = 42"
    assert NodeCache(tmp_path / "cache").get(archives, archive.sha256) == folder
    assert store.count("get") == 1


def test_what_a_dead_process_has_unpacked_in_part_is_not_used(store, archive, cache, tmp_path):
    left = tmp_path / "cache" / f"{archive.sha256}.1.tmp"
    left.mkdir()
    (left / "half.py").write_text("")
    folder = cache.get(ArchiveStore(store), archive.sha256)
    assert [path.name for path in folder.iterdir()] == ["an_authors_module.py"]
    assert not left.exists()


def test_a_damaged_or_missing_archive_leaves_nothing(store, archive, cache, tmp_path):
    archives = ArchiveStore(store)
    with pytest.raises(KeyNotFoundError):
        cache.get(archives, A)
    store.put(keys.archive_key(archive.sha256), b"other")
    with pytest.raises(CorruptedDataError):
        cache.get(archives, archive.sha256)
    no_zip = Archive.of(b"no zip")
    archives.add(no_zip)
    with pytest.raises(ArchiveError, match="no zip"):
        cache.get(archives, no_zip.sha256)
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_what_no_process_uses_any_more_is_deleted_after_a_while(store, archive, cache, tmp_path):
    folder = cache.get(ArchiveStore(store), archive.sha256)
    used = tmp_path / "cache" / f"{archive.sha256}.used"
    os.utime(used, (1, 1))
    assert cache.delete_unused() == []  # this process uses it
    unpack._used.pop(used).close()
    os.utime(used)
    assert cache.delete_unused() == []  # it was used a moment ago
    os.utime(used, (time.time() - 8 * 24 * 3600,) * 2)
    with open(used, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert cache.delete_unused() == []  # another process uses it
    assert cache.delete_unused() == [archive.sha256]
    assert not folder.exists()
    assert cache.get(ArchiveStore(store), archive.sha256).is_dir()


def test_what_is_deleted_only_in_part_is_not_used(store, archive, cache, tmp_path, monkeypatch):
    folder = cache.get(ArchiveStore(store), archive.sha256)
    used = tmp_path / "cache" / f"{archive.sha256}.used"
    unpack._used.pop(used).close()
    os.utime(used, (1, 1))
    (folder / "another_module.py").write_text("")
    monkeypatch.setattr(
        unpack.shutil,
        "rmtree",
        lambda path, **_: Path(path).joinpath("an_authors_module.py").unlink(missing_ok=True),
    )
    cache.delete_unused()
    again = cache.get(ArchiveStore(store), archive.sha256)
    assert [path.name for path in again.iterdir()] == ["an_authors_module.py"]


def test_a_folder_that_others_can_write_is_refused(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ArchiveError, match="another user could change it"):
        NodeCache(folder)
    link = tmp_path / "link"
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    link.symlink_to(private)
    with pytest.raises(ArchiveError, match="another user could change it"):
        NodeCache(link)


@pytest.mark.parametrize(
    ("given", "wanted", "archives"),
    [
        ({}, {}, None),
        ({"pip": ["numpy"]}, {"pip": ["numpy"]}, None),
        ({"working_dir": "s3://b/x.zip"}, {"working_dir": "s3://b/x.zip"}, None),
        ({"working_dir": {"archive": A}}, {}, {"working_dir": A, "py_modules": []}),
        (
            {"py_modules": [{"archive": A}, "s3://b/x.zip"], "env_vars": {"X": "1"}},
            {"py_modules": ["s3://b/x.zip"], "env_vars": {"X": "1"}},
            {"working_dir": None, "py_modules": [A]},
        ),
        (
            {"working_dir": {"archive": B}, "py_modules": [{"archive": A}]},
            {},
            {"working_dir": B, "py_modules": [A]},
        ),
    ],
)
def test_ray_is_told_of_archives_by_a_variable(given, wanted, archives):
    """Another archive gives another environment, so that Ray takes another worker."""
    environment = ray_environment(given)
    text = (environment.get("env_vars") or {}).pop(ARCHIVES_VARIABLE, None)
    if environment.get("env_vars") == {}:
        del environment["env_vars"]
    assert environment == wanted
    assert (json.loads(text) if text else None) == archives


_PROCESS = """
import os, sys
from pathlib import Path
from airflow_provider_rayworkflow.workflow.runtime.service.unpack import NodeCache, enter_archives
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, open_store
store, cache = WorkflowStore(open_store(sys.argv[1])), NodeCache(Path(sys.argv[2]))
for _ in range(2):
    enter_archives(store, cache)
import an_authors_module
print(an_authors_module.x, Path.cwd() == Path(an_authors_module.__file__).parent, sys.path.count(os.getcwd()))
"""


def test_a_process_that_enters_its_archives_imports_the_authors_modules(tmp_path, archive):
    from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore

    ArchiveStore(LocalStore(tmp_path / "store")).add(archive)
    named = {"working_dir": archive.sha256, "py_modules": []}
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, str(tmp_path / "store"), str(tmp_path / "cache")],
        env=os.environ | {ARCHIVES_VARIABLE: json.dumps(named)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["42", "True", "1"]


def test_without_the_variable_nothing_is_entered(monkeypatch):
    monkeypatch.delenv(ARCHIVES_VARIABLE, raising=False)
    before = list(sys.path)
    enter_archives(WorkflowStore(MemoryStore()))
    assert sys.path == before
