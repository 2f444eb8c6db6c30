"""What is written together shares steps, and fails each by itself."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow.storage.backends.file_writes import FileWrites
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data, Put


def write(writes: FileWrites, key: str, data: Data = b"x", *, must_be_new: bool = False) -> bool:
    put = Put(key, data, must_be_new=must_be_new)
    writes.write([put])
    if put.error is not None:
        raise put.error
    return put.is_new


@pytest.fixture
def writes(request: pytest.FixtureRequest, tmp_path: Path) -> FileWrites:
    writes = FileWrites(str(tmp_path), **getattr(request, "param", {}))
    write(writes, "first")  # the folder is known from here on
    return writes


on_each_disk = pytest.mark.parametrize(
    "writes",
    [{"slow_sync_s": float("inf")}, {"slow_sync_s": 0}],
    ids=["quick disk", "slow disk"],
    indirect=True,
)
large_from_ten_bytes = pytest.mark.parametrize("writes", [{"large_bytes": 10}], indirect=True)


@on_each_disk
def test_files_that_are_written_together_sync_their_folder_once(
    writes: FileWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    puts = [Put(str(number), b"%d" % number) for number in range(20)]
    writes.write(puts)
    assert [put.error for put in puts] == [None] * 20
    files = [(tmp_path / put.key) for put in puts]
    assert [file.read_bytes() for file in files] == [put.data for put in puts]
    # Each file before it gets its name, and the folder after all of them have theirs.
    assert sorted(synced[:-1]) == sorted(file.stat().st_ino for file in files)
    assert synced[-1] == tmp_path.stat().st_ino


@on_each_disk
def test_a_file_that_can_not_be_synced_gets_no_name(
    writes: FileWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def sync(descriptor: int) -> None:
        if os.fstat(descriptor).st_size == len("bad"):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", sync)
    puts = [Put(key, key.encode()) for key in ("a", "bad", "b", "c")]
    writes.write(puts)
    assert [put.key for put in puts if put.error] == ["bad"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "first"]


@large_from_ten_bytes
def test_a_large_write_is_synced_while_it_is_under_way(
    writes: FileWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written: list[int] = []
    writev = os.writev
    monkeypatch.setattr(
        os, "writev", lambda d, parts: (written.append(sum(map(len, parts))), writev(d, parts))[1]
    )
    parts = [b"head", os.urandom(35), b"t"]
    write(writes, "a", parts)
    assert (tmp_path / "a").read_bytes() == b"".join(parts)
    assert written == [14, 10, 10, 6]


@large_from_ten_bytes
def test_the_error_of_an_early_sync_is_not_lost(
    writes: FileWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The system tells it to one call only; later ones succeed.
    sync, calls = os.fsync, count()

    def fail_first(descriptor: int) -> None:
        if next(calls) == 0:
            raise OSError(5, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_first)
    with pytest.raises(OSError, match="Input/output error"):
        write(writes, "a", os.urandom(35))
    assert os.listdir(tmp_path) == ["first"]


def test_one_that_fails_takes_no_others_along(writes: FileWrites, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "there").write_bytes(b"before")
    good, bad, not_new, also_good = puts = [
        Put("good", b"x"),
        Put("folder", b"x"),
        Put("there", b"x", must_be_new=True),
        Put("also good", b"x"),
    ]
    writes.write(puts)
    assert [put.error for put in (good, not_new, also_good)] == [None] * 3
    assert [put.is_new for put in (good, not_new, also_good)] == [True, False, True]
    assert isinstance(bad.error, IsADirectoryError)
    assert (tmp_path / "also good").read_bytes() == b"x"
    assert (tmp_path / "there").read_bytes() == b"before"
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_folder_that_can_not_be_synced_is_an_error_of_the_writes_into_it(
    writes: FileWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "bad").mkdir()
    folder = os.stat(tmp_path / "bad").st_ino

    def sync(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == folder:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", sync)
    puts = [Put("bad/a", b"x"), Put("b", b"x")]
    writes.write(puts)
    assert isinstance(puts[0].error, OSError)
    assert puts[1].error is None


def test_of_racing_writers_of_a_new_file_one_is_first(tmp_path: Path):
    writes = FileWrites(str(tmp_path / "new root"))
    with ThreadPoolExecutor(16) as pool:
        first = list(
            pool.map(lambda n: write(writes, "a/b/c", b"%d" % n, must_be_new=True), range(16))
        )
    assert first.count(True) == 1
    assert Path(writes.root, "a/b/c").read_bytes() == b"%d" % first.index(True)
    assert os.listdir(f"{writes.root}/a/b") == ["c"]


def test_a_folder_that_another_process_made_is_synced_into_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writes = FileWrites(str(tmp_path))
    write(writes, "a")
    (tmp_path / "folder").mkdir()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    write(writes, "folder/b")
    assert tmp_path.stat().st_ino in synced
    synced.clear()
    write(writes, "folder/c")
    assert tmp_path.stat().st_ino not in synced
