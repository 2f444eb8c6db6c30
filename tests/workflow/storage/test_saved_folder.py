"""The folder of a task: whole versions of its files, streamed in pieces, on whatever storage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError, OwnershipLostError
from airflow_provider_rayworkflow.workflow.format.documents import dump_document
from airflow_provider_rayworkflow.workflow.storage import ByteStore, open_store
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data, buffers
from airflow_provider_rayworkflow.workflow.storage.file_pieces import (
    FileEntry,
    checked_path,
    files_of,
    pieces_of,
    write_files,
)
from airflow_provider_rayworkflow.workflow.storage.keys import epoch_key
from airflow_provider_rayworkflow.workflow.storage.saved_folder import SavedFolder
from airflow_provider_rayworkflow.workflow.storage.saved_keys import task_folder
from airflow_provider_rayworkflow.workflow.storage.saved_versions import SavingAttempt

FILES = {"model.bin": b"0123456789" * 3, "empty": b"", "deep/er/optimizer": b"abc", "é ü": b"x"}

Open = Callable[..., SavedFolder]


@pytest.fixture(params=["memory", "files", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ByteStore:
    if request.param == "memory":
        return MemoryStore()
    uri = str(tmp_path / "storage") if request.param == "files" else None
    return open_store(uri or request.getfixturevalue("s3_uri"))


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[[], Path]:
    numbers = count()

    def new() -> Path:
        folder = tmp_path / f"local{next(numbers)}"
        folder.mkdir()
        return folder

    return new


@pytest.fixture
def open_folder(store: ByteStore, new_folder: Callable[[], Path]) -> Open:
    claim(store, 1)

    def open_(epoch: int = 1, attempt: int = 1, piece_bytes: int = 7) -> SavedFolder:
        saving = SavingAttempt(workflow_id="w", task_id="t", epoch=epoch, attempt=attempt)
        return SavedFolder(store, saving, new_folder, piece_bytes=piece_bytes)

    return open_


def claim(store: ByteStore, epoch: int) -> None:
    store.put(epoch_key("w", epoch), b"claim %d" % epoch)


def write(folder: SavedFolder, files: dict[str, bytes]) -> None:
    with folder.writing() as path:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)


def content(path: Path | None) -> dict[str, bytes] | None:
    if path is None:
        return None
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def stored(store: ByteStore) -> list[str]:
    return sorted(entry.key.rpartition("/")[2] for entry in store.list(task_folder("w", "t")))


def test_without_a_version_there_is_no_folder(open_folder: Open):
    assert open_folder().latest() is None


def test_the_files_of_the_latest_version_come_back_as_they_were(open_folder: Open):
    folder = open_folder()
    write(folder, {"old": b"old"})
    write(folder, FILES)
    assert content(folder.latest()) == content(open_folder(attempt=2).latest()) == FILES


def test_earlier_versions_are_deleted_with_all_their_pieces(store: ByteStore, open_folder: Open):
    write(open_folder(), FILES)
    write(open_folder(attempt=2), {"one": b"12345678"})
    assert stored(store) == [
        "00000001-000002-00000001-000000.piece",
        "00000001-000002-00000001-000001.piece",
        "00000001-000002-00000001.files",
    ]


def test_a_version_without_files_is_one(open_folder: Open):
    write(open_folder(), {})
    assert content(open_folder(attempt=2).latest()) == {}


def test_after_an_exception_nothing_is_stored(store: ByteStore, open_folder: Open):
    folder = open_folder()
    write(folder, {"a": b"1"})
    with pytest.raises(KeyError), folder.writing() as path:  # noqa: PT012
        (path / "a").write_bytes(b"2")
        raise KeyError
    assert not path.exists()
    assert content(folder.latest()) == {"a": b"1"}
    assert len(stored(store)) == 2


@pytest.mark.invariant(3)
def test_an_attempt_of_an_earlier_epoch_leaves_no_version(store: ByteStore, open_folder: Open):
    old = open_folder()
    write(old, {"a": b"1"})
    claim(store, 2)
    write(open_folder(epoch=2), {"a": b"2"})
    with pytest.raises(OwnershipLostError):
        write(old, {"a": b"3"})
    assert content(open_folder(epoch=2, attempt=2).latest()) == {"a": b"2"}
    assert len(stored(store)) == 2


def test_a_program_stays_executable(open_folder: Open):
    with open_folder().writing() as path:
        (path / "run").write_text("#!/bin/sh")
        (path / "run").chmod(0o755)
        (path / "data").write_text("")
    latest = open_folder(attempt=2).latest()
    assert latest is not None
    assert os.access(latest / "run", os.X_OK)
    assert not (latest / "data").stat().st_mode & 0o111


def test_a_second_look_gives_the_same_folder_until_there_is_another_version(open_folder: Open):
    folder = open_folder()
    write(folder, {"a": b"1"})
    first = folder.latest()
    assert folder.latest() == first
    write(folder, {"a": b"2"})
    assert content(folder.latest()) == {"a": b"2"}
    assert first is not None
    assert not first.exists()


# ---- what can't be stored


def test_a_link_to_a_file_of_the_folder_becomes_a_file(open_folder: Open):
    with open_folder().writing() as path:
        (path / "epoch7").write_bytes(b"weights")
        (path / "last").symlink_to("epoch7")
    latest = open_folder(attempt=2).latest()
    assert content(latest) == {"epoch7": b"weights", "last": b"weights"}
    assert latest is not None
    assert not (latest / "last").is_symlink()


@pytest.mark.parametrize("target", ["/etc/passwd", "../other", "..", "/", "/etc"], ids=str)
def test_a_link_out_of_the_folder_is_refused(open_folder: Open, tmp_path: Path, target: str):
    (tmp_path / "other").write_text("secret")
    with pytest.raises(ValueError, match="'link' leads out of the folder"):  # noqa: SIM117
        with open_folder().writing() as path:
            (path / "link").symlink_to(target)
    assert open_folder().latest() is None


def test_what_is_no_file_is_refused_by_name(open_folder: Open):
    def refused(make: Callable[[Path], object]) -> str:
        with pytest.raises(ValueError) as caught, open_folder().writing() as path:  # noqa: PT011
            make(path)
        return str(caught.value)

    assert "'pipe' is no file" in refused(lambda path: os.mkfifo(path / "pipe"))
    assert "'gone' leads to nothing" in refused(lambda path: (path / "gone").symlink_to("x"))
    assert "is no text" in refused(lambda path: (path / os.fsdecode(b"\xff")).touch())

    def link_to_folder(path: Path) -> None:
        (path / "real").mkdir()
        (path / "link").symlink_to("real")

    assert "'link' is no file" in refused(link_to_folder)


# ---- damage


def test_a_damaged_version_is_named_and_not_used(caplog: pytest.LogCaptureFixture, new_folder):
    store = MemoryStore()
    claim(store, 1)
    saving = SavingAttempt(workflow_id="w", task_id="t", epoch=1, attempt=1)
    write(SavedFolder(store, saving, new_folder, piece_bytes=4), {"a": b"12345678"})
    for entry in list(store.list(task_folder("w", "t"))):
        whole = store.get(entry.key)
        for damaged in (whole[:-3], b"", None):
            if damaged is None:
                store.delete([entry.key])
            else:
                store.put(entry.key, damaged)
            assert SavedFolder(store, saving, new_folder).latest() is None
        if not entry.key.endswith(".files"):  # without that, it is no version
            assert entry.key in caplog.text or "pieces are missing" in caplog.text
        store.put(entry.key, whole)


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../../x", "", ".", "a//b", "a/./b", "a\0b"], ids=ascii
)
def test_a_version_that_leads_out_of_its_folder_is_not_unpacked(
    caplog: pytest.LogCaptureFixture, new_folder: Callable[[], Path], tmp_path: Path, path: str
):
    store = MemoryStore()
    key = f"{task_folder('w', 't')}/00000001-000001-00000001.files"
    body = {"task": "t", "files": [[path, 0, False]], "pieces": []}
    store.put(key, dump_document(key, "files", body))
    saving = SavingAttempt(workflow_id="w", task_id="t", epoch=1, attempt=1)
    assert SavedFolder(store, saving, new_folder).latest() is None
    assert "is no path below a folder" in caplog.text
    assert not (tmp_path / "x").exists()
    with pytest.raises(ValueError, match="is no path below a folder"):
        checked_path(path)


def test_a_write_that_fails_leaves_the_version_before(new_folder: Callable[[], Path]):
    class Full(MemoryStore):
        is_full = False

        def put(self, key: str, data: Data) -> None:
            if self.is_full and key.endswith("000002.piece"):
                raise DataSaveError("No space left on device.")
            super().put(key, data)

    store = Full()
    claim(store, 1)
    saving = SavingAttempt(workflow_id="w", task_id="t", epoch=1, attempt=1)
    folder = SavedFolder(store, saving, new_folder, piece_bytes=4)
    write(folder, {"a": b"1" * 12})
    before = stored(store)
    store.is_full = True
    with pytest.raises(DataSaveError):
        write(folder, {"a": b"2" * 12})
    assert stored(store) == before
    assert content(SavedFolder(store, saving, new_folder).latest()) == {"a": b"1" * 12}


def test_no_more_than_a_piece_of_the_files_is_written_at_once(new_folder: Callable[[], Path]):
    class Measuring(MemoryStore):
        largest = 0

        def put(self, key: str, data: Data) -> None:
            if key.endswith(".piece"):
                self.largest = max(self.largest, sum(len(part) for part in buffers(data)))
            super().put(key, data)

    store = Measuring()
    claim(store, 1)
    saving = SavingAttempt(workflow_id="w", task_id="t", epoch=1, attempt=1)
    write(SavedFolder(store, saving, new_folder, piece_bytes=1000), {"a": bytes(10**6)})
    assert 1000 < store.largest < 1200


NAMES = st.sampled_from(["a", "b", "c/d", "c/e/f", "g"])


@given(st.dictionaries(NAMES, st.binary(max_size=40)), st.integers(1, 50))
def test_files_are_the_same_after_they_were_cut_into_pieces(
    files: dict[str, bytes], piece_bytes: int
):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        for name, data in files.items():
            path = Path(one, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        entries = files_of(Path(one))
        assert [entry.path for entry in entries] == sorted(files)
        pieces = [bytes(piece) for piece in pieces_of(Path(one), entries, piece_bytes)]
        assert {len(piece) for piece in pieces[:-1]} <= {piece_bytes}
        write_files(Path(other), entries, pieces)
        assert content(Path(other)) == files


def test_bytes_that_are_missing_or_too_many_are_told(tmp_path: Path):
    files = [FileEntry("a", 3)]
    for pieces, what in (([b"12"], "missing"), ([b"123", b"4"], "more bytes"), ([b"1234"], "more")):
        folder = tmp_path / str(len(pieces[0]) + len(pieces))
        folder.mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=what):
            write_files(folder, files, pieces)
        (folder / "a").unlink()
