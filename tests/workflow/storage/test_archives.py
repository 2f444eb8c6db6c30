"""Folders of code as archives: the same bytes for the same files, and nothing outside of their folder."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from faulty import FaultyStore, Killed
from sample_records import claim_epoch, status_record, submission

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.offline.prune import prune
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, keys
from airflow_provider_rayworkflow.workflow.storage.archives import (
    Archive,
    ArchiveError,
    ArchiveStore,
    check_members,
    pack,
    unpack,
)
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox


def write(folder: Path, **files: str) -> Path:
    """A folder with files; ``__`` in a name stands for ``/``, and ``_py`` at its end for ``.py``."""
    for name, content in files.items():
        path = folder / (name.replace("__", "/").removesuffix("_py") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def names(archive: Archive) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(archive.data)).namelist()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return write(tmp_path / "code", main_py="import lib.tool", lib__tool_py="x = 1")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def test_a_folder_comes_out_as_it_went_in(code, target):
    (code / "lib" / "run.sh").write_text("#!/bin/sh")
    (code / "lib" / "run.sh").chmod(0o700)
    unpack(pack(code).data, target)
    assert (target / "main.py").read_text() == "import lib.tool"
    assert (target / "lib" / "tool.py").read_text() == "x = 1"
    assert os.access(target / "lib" / "run.sh", os.X_OK)
    assert not os.access(target / "main.py", os.X_OK)


def test_the_same_files_make_the_same_bytes(code, tmp_path):
    again = write(tmp_path / "elsewhere" / "code", lib__tool_py="x = 1", main_py="import lib.tool")
    os.utime(again / "main.py", (1, 1))
    (again / "main.py").chmod(0o600)
    (again / "lib" / "__pycache__").mkdir()
    (again / "lib" / "__pycache__" / "tool.cpython-311.pyc").write_bytes(b"compiled")
    (again / "lib" / "old.pyc").write_bytes(b"compiled")
    assert pack(again) == pack(code)
    write(again, lib__tool_py="x = 2")
    assert pack(again).sha256 != pack(code).sha256


def test_a_package_keeps_its_name(code):
    assert names(pack(code, with_parent=True)) == ["code/lib/tool.py", "code/main.py"]
    assert names(pack(code / "main.py")) == ["main.py"]


def test_what_is_excluded_is_not_even_looked_at(code):
    (code / "data").mkdir()
    (code / "data" / "out").symlink_to("/etc")
    archive = pack(code, is_excluded=lambda name: name in ("data/", "lib/tool.py"))
    assert names(archive) == ["main.py"]


@pytest.mark.parametrize("name", [".venv", "lib/env-3.11"])
def test_a_virtual_environment_is_left_out(code, tmp_path, name):
    """It is of one machine, large, and has links out of the folder."""
    plain = pack(code)
    environment = code / name
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to("/usr/bin/env")
    (environment / "pyvenv.cfg").write_text("home = /usr/bin")
    assert pack(code) == plain
    environment.rename(tmp_path / "elsewhere")
    environment.symlink_to(tmp_path / "elsewhere")
    assert pack(code) == plain


def test_a_folder_that_is_too_large_is_refused_with_its_largest_parts(code):
    (code / "lib" / "data.bin").write_bytes(bytes(3 * 1024 * 1024))
    with pytest.raises(
        ArchiveError, match=r"has 3\.0 MiB, .* may have 2\.0 MiB.*'lib' 3\.0 MiB.*excludes"
    ):
        pack(code, most_bytes=2 * 1024 * 1024)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ArchiveError, match="can't be packed"):
        pack(tmp_path / "nothing")
    with pytest.raises(ArchiveError, match="can't be packed"):
        pack(tmp_path / "nothing.py")


def test_a_link_to_a_file_of_the_folder_is_stored_as_that_file(code, target):
    (code / "alias.py").symlink_to("lib/tool.py")
    (code / "broken.py").symlink_to("nothing.py")
    (code / "circle").symlink_to("circle")
    unpack(pack(code).data, target)
    assert (target / "alias.py").read_text() == "x = 1"
    assert not (target / "alias.py").is_symlink()
    assert sorted(path.name for path in target.iterdir()) == ["alias.py", "lib", "main.py"]


@pytest.mark.parametrize("leads_to", ["/etc/hostname", "/etc", "../../secret.py", "../lib"])
def test_a_link_out_of_the_folder_or_to_a_folder_is_refused(code, leads_to):
    (code.parent / "secret.py").write_text("secret")
    (code / "lib" / "link").symlink_to(leads_to)
    with pytest.raises(ArchiveError, match="'lib/link' is a symbolic link"):
        pack(code)


def test_the_folder_itself_may_be_a_link(code, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(code)
    assert pack(link) == pack(code)
    assert names(pack(link, with_parent=True))[0].startswith("current/")


def hostile(*members: tuple[str, int, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, content in members:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


FILE = stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (hostile(("../out.py", FILE, b"")), "leads out"),
        (hostile(("a/../../out.py", FILE, b"")), "leads out"),
        (hostile(("/etc/out.py", FILE, b"")), "leads out"),
        (hostile(("a\\..\\out.py", FILE, b"")), "leads out"),
        (hostile(("c:/out.py", FILE, b"")), "leads out"),
        (hostile(("link", stat.S_IFLNK | 0o777, b"/etc/passwd")), "is a link"),
        (hostile(("fifo", stat.S_IFIFO | 0o644, b"")), "is a link or no plain file"),
        (hostile(("a.py", FILE, b"1"), ("./a.py", FILE, b"2")), "twice"),
        (hostile(("bomb", FILE, bytes(2 * 1024 * 1024))), "more than 1.0 MiB"),
        (b"no zip", "no zip"),
        (b"", "no zip"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_archive_is_refused_before_anything_is_written(target, data, message):
    with pytest.raises(ArchiveError, match=message):
        unpack(data, target, most_bytes=1024 * 1024)
    assert list(target.iterdir()) == []
    assert not (target.parent / "out.py").exists()


def test_a_damaged_file_in_an_archive_is_named(code, target):
    data = bytearray(hostile(("a.py", FILE, b"x = 1" * 100)))
    start = data.index(b"a.py") + len(b"a.py")
    data[start + 3] ^= 0xFF
    check_members(bytes(data))
    with pytest.raises((ArchiveError, OSError), match=r"a\.py"):
        unpack(bytes(data), target)


# ---- in the storage

ARCHIVE = Archive.of(b"zip of the code")
OTHER = Archive.of(b"zip of other code")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def archives(store: MemoryStore) -> ArchiveStore:
    return ArchiveStore(store)


def stored(store: MemoryStore) -> set[str]:
    return {entry.key for entry in store.list("v1/archives")}


def all_keys(store: MemoryStore) -> set[str]:
    """But for change logs, which tell of deletions until they are taken over."""
    found = {entry.key for entry in store.list("v1")}
    return {key for key in found if not key.startswith(f"{keys.CHANGES}/")}


def finished(store: MemoryStore, workflow_id: str) -> WorkflowStore:
    """A workflow that ended at 100 s."""
    workflows = WorkflowStore(store)
    graph = Graph(tasks=[Task(name="a", function=0, arguments=0)], blobs=[b""])
    claim_epoch(workflows, workflow_id, graph)
    workflows.write_status(
        status_record(WorkflowStatus.FAILED, workflow_id, number=1, created_at=1.0, ended_at=100.0)
    )
    return workflows


def test_an_archive_is_written_once(store, archives):
    counting = FaultyStore(store)
    ArchiveStore(counting).add(ARCHIVE)
    ArchiveStore(counting).add(ARCHIVE)
    assert counting.writes == 1
    assert archives.read(ARCHIVE.sha256) == ARCHIVE
    assert stored(store) == {f"v1/archives/{ARCHIVE.sha256}.zip"}


def test_an_archive_with_other_bytes_than_its_name_says_is_not_believed(store, archives):
    archives.add(ARCHIVE)
    store.put(keys.archive_key(ARCHIVE.sha256), b"other code")
    with pytest.raises(CorruptedDataError, match="not that of its name"):
        archives.read(ARCHIVE.sha256)
    with pytest.raises(KeyNotFoundError):
        archives.read(OTHER.sha256)


@pytest.mark.parametrize("sha256", ["", "../status", "A" * 64, "0" * 63])
def test_what_is_no_checksum_makes_no_key(archives, sha256):
    with pytest.raises(ValueError, match="no SHA-256"):
        archives.read(sha256)


def test_an_archive_goes_with_the_last_workflow_that_uses_it(store, archives):
    for workflow_id in ("one", "two"):
        finished(store, workflow_id)
        archives.use(workflow_id, ARCHIVE, now=1.0)
    archives.use("one", OTHER, now=1.0)
    assert archives.used_by("one") == sorted([ARCHIVE.sha256, OTHER.sha256])
    WorkflowStore(store).delete("one")
    assert stored(store) == {keys.archive_key(ARCHIVE.sha256)}
    WorkflowStore(store).delete("two")
    # Change logs tell of it until they are taken over.
    assert {key for key in all_keys(store) if not key.startswith(keys.CHANGES)} == set()


def test_a_fork_uses_what_its_workflow_uses(store, archives):
    archives.use("one", ARCHIVE, now=1.0)
    archives.share("one", "fork", now=2.0)
    assert archives.release("one") == []
    assert archives.used_by("fork") == [ARCHIVE.sha256]
    assert archives.release("fork") == [ARCHIVE.sha256]


def test_marks_of_archives_do_not_look_like_files_of_a_run(store, archives):
    workflows = finished(store, "w")
    files = workflows.list_files("w")
    archives.use("w", ARCHIVE, now=1.0)
    assert workflows.list_files("w") == files
    assert workflows.last_epoch("w") == 1


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_deletion_that_dies_anywhere_is_done_by_the_next_one(how):
    at = 0
    while True:
        store = MemoryStore()
        archives = ArchiveStore(store)
        archives.use("one", ARCHIVE, now=1.0)
        archives.use("one", OTHER, now=1.0)
        archives.use("two", OTHER, now=1.0)
        faulty = FaultyStore(store, at=at, how=how)
        try:
            ArchiveStore(faulty).release("one")
        except Killed:
            archives.release("one")
            at += 1
        else:
            break
        assert stored(store) == {keys.archive_key(OTHER.sha256)}
        assert archives.used_by("one") == []
    assert at == 5  # two uses, an archive, two marks


def test_an_archive_that_is_used_anew_while_it_is_removed_stays():
    class Racing(MemoryStore):
        """Another process looks whether the archive is there, just before it is deleted."""

        def delete(self, keys_):
            keys_ = list(keys_)
            if keys_ == [keys.archive_key(ARCHIVE.sha256)]:
                ArchiveStore(self).use("new", ARCHIVE, now=2.0)
            super().delete(keys_)

    store = Racing()
    archives = ArchiveStore(store)
    archives.use("old", ARCHIVE, now=1.0)
    assert archives.release("old") == []
    assert archives.read(ARCHIVE.sha256) == ARCHIVE
    assert archives.used_by("new") == [ARCHIVE.sha256]


def test_prune_removes_archives_of_old_workflows_and_of_those_that_never_began(store, archives):
    workflows = finished(store, "old")
    archives.use("old", ARCHIVE, now=1.0)
    archives.use("never began", OTHER, now=1.0)
    archives.use("just submitted", Archive.of(b"new"), now=990.0)
    archives.use("waits long", Archive.of(b"waiting"), now=1.0)
    Mailbox(store).submit(submission(workflow_id="waits long"))
    prune(workflows, older_than_s=500.0, now=1000.0)
    left = {keys.archive_key(Archive.of(content).sha256) for content in (b"new", b"waiting")}
    assert stored(store) == left
    assert archives.used_by("never began") == []


def test_a_damaged_use_keeps_its_archive_and_stops_nothing(store, archives):
    workflows = finished(store, "old")
    archives.use("old", ARCHIVE, now=1.0)
    archives.use("never began", OTHER, now=1.0)
    store.put(keys.archive_use_key(OTHER.sha256, "never began"), b"torn")
    prune(workflows, older_than_s=500.0, now=1000.0)
    assert stored(store) == {keys.archive_key(OTHER.sha256)}
