"""What many threads write at once takes its steps together, and fails each by itself."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow.storage.file_writes import GROUPS_AT_ONCE, FileWrites


class Disk:
    """Stands for ``os.fsync`` of files: the first ones, one of each group, wait until they may go on.

    :ivar synced: how many files and folders.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced = 0
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self._held = GROUPS_AT_ONCE
        self._lock = threading.Lock()
        monkeypatch.setattr(os, "fsync", self._sync)

    def _sync(self, descriptor: int) -> None:
        with self._lock:
            self.synced += 1
            is_held = self._held > 0
            self._held -= 1
        if is_held:
            self.begun.release()
            assert self.go_on.wait(10)


@pytest.fixture
def writes(tmp_path: Path) -> FileWrites:
    writes = FileWrites(str(tmp_path))
    writes.write(f"{tmp_path}/first", b"")  # the folder is known from here on
    return writes


def wait_for_waiting(writes: FileWrites, count: int) -> None:
    """Until so many wait for a thread that leads."""
    pause = threading.Event()
    for _ in range(1_000):
        if writes._groups.waiting == count:
            return
        pause.wait(0.01)
    raise AssertionError("they don't come")


def test_those_that_come_while_the_disk_is_busy_go_together(
    writes: FileWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = Disk(monkeypatch)
    with ThreadPoolExecutor(30) as pool:
        begun = []
        for number in range(GROUPS_AT_ONCE):
            begun.append(pool.submit(writes.write, f"{tmp_path}/begun{number}", b"x"))
            assert disk.begun.acquire(timeout=10)
        later = [pool.submit(writes.write, f"{tmp_path}/{n}", b"%d" % n) for n in range(20)]
        wait_for_waiting(writes, 20)
        disk.go_on.set()
        assert all(future.result(timeout=10) for future in (*begun, *later))
    assert [(tmp_path / str(n)).read_bytes() for n in range(20)] == [b"%d" % n for n in range(20)]
    # Each file once; the folder once for each group: those that had begun, and one or two after.
    assert disk.synced - (GROUPS_AT_ONCE + 20) in (GROUPS_AT_ONCE + 1, GROUPS_AT_ONCE + 2)


def test_one_that_fails_takes_no_others_along(
    writes: FileWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = Disk(monkeypatch)
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / "good", tmp_path / "folder", tmp_path / "also good"]
    with ThreadPoolExecutor(30) as pool:
        for number in range(GROUPS_AT_ONCE):
            pool.submit(writes.write, f"{tmp_path}/begun{number}", b"x")
            assert disk.begun.acquire(timeout=10)
        good, bad, also_good = [pool.submit(writes.write, str(path), b"x") for path in paths]
        wait_for_waiting(writes, 3)
        disk.go_on.set()
        assert [one.result(timeout=10) for one in (good, also_good)] == [True, True]
        with pytest.raises(IsADirectoryError):
            bad.result(timeout=10)
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_folder_that_can_not_be_synced_is_an_error_for_those_who_wrote_there(
    writes: FileWrites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = os.stat(tmp_path).st_ino

    def sync(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == folder:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="Input/output"):
        writes.write(f"{tmp_path}/a", b"x")


def test_of_racing_writers_of_a_new_file_one_is_first(tmp_path: Path):
    writes = FileWrites(str(tmp_path / "new root"))
    path = f"{writes.root}/a/b/c"
    with ThreadPoolExecutor(16) as pool:
        first = list(pool.map(lambda n: writes.write(path, b"%d" % n, must_be_new=True), range(16)))
    assert first.count(True) == 1
    assert Path(path).read_bytes() == b"%d" % first.index(True)
    assert os.listdir(f"{writes.root}/a/b") == ["c"]


def test_a_folder_that_somebody_else_made_is_synced_into_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writes = FileWrites(str(tmp_path))
    writes.write(f"{tmp_path}/a", b"")
    (tmp_path / "folder").mkdir()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    writes.write(f"{tmp_path}/folder/b", b"")
    assert tmp_path.stat().st_ino in synced
    synced.clear()
    writes.write(f"{tmp_path}/folder/c", b"")
    assert tmp_path.stat().st_ino not in synced


def test_a_forked_process_writes_without_the_threads_of_its_parent(
    writes: FileWrites, tmp_path: Path
):
    writes._groups._line.leaders = (
        GROUPS_AT_ONCE  # as if others were leading at the moment of the fork
    )
    child = os.fork()
    if not child:
        writes.write(f"{tmp_path}/child", b"x")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "child").read_bytes() == b"x"
