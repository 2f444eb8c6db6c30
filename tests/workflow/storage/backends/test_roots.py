"""A local storage follows no link, reads files only, and uses no default root of another user."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    DataSaveError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.storage import open_filesystem
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.roots import (
    closing,
    open_at_once,
    open_below,
)
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Put


def by_path(root: Path) -> ByteStore:
    return LocalStore(root)


def by_arrow(root: Path) -> ByteStore:
    return open_filesystem(fs.SubTreeFileSystem(str(root), fs.LocalFileSystem()), "", location="")


def by_fsspec(root: Path) -> ByteStore:
    folder = DirFileSystem(str(root.parent), LocalFileSystem())
    handler = fs.PyFileSystem(fs.FSSpecHandler(DirFileSystem(root.name, folder)))
    return open_filesystem(handler, "", location="")


@pytest.fixture(params=["at once", "part by part"])
def every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as on a system that does not open a path without links in one call."""
    if request.param == "part by part":
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(sysname="another one"))


@pytest.fixture(params=[by_path, by_arrow, by_fsspec])
def store(request: pytest.FixtureRequest, tmp_path: Path, every_way: None) -> ByteStore:
    store: ByteStore = request.param(tmp_path / "root")
    store.put("v1/folder/inner/file", b"ours")
    away = tmp_path / "away"
    away.mkdir()
    (away / "file").write_bytes(b"theirs")
    (away / "inner").mkdir()
    (away / "inner/file").write_bytes(b"theirs")
    return store


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CALLS: dict[str, Callable[[ByteStore], object]] = {
    "get": lambda store: store.get("v1/link/inner/file"),
    "get a range": lambda store: store.get("v1/link/inner/file", 1, 2),
    "put": lambda store: store.put("v1/link/inner/file", b"new"),
    "put a new one": lambda store: store.put("v1/link/inner/other", b"new"),
    "put into a new folder": lambda store: store.put("v1/link/new/file", b"new"),
    "put if absent": lambda store: store.put_if_absent("v1/link/inner/other", b"new"),
    "copy from": lambda store: store.copy("v1/link/inner/file", "v1/folder/copy"),
    "copy to": lambda store: store.copy("v1/folder/inner/file", "v1/link/inner/file"),
    "list": lambda store: list(store.list("v1/link/inner")),
    "list the link": lambda store: list(store.list("v1/link")),
    "delete": lambda store: store.delete(["v1/link/inner/file"]),
    "delete a folder": lambda store: store.delete_folder("v1/link/inner"),
    "delete the link": lambda store: store.delete_folder("v1/link"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_link_in_the_place_of_a_folder_is_followed_by_no_call(
    store: ByteStore, call: str, tmp_path: Path
):
    (tmp_path / "root/v1/link").symlink_to(tmp_path / "away")
    before = content(tmp_path)
    with pytest.raises(StorageError, match="no link below the storage is followed"):
        CALLS[call](store)
    assert content(tmp_path) == before


def test_a_file_behind_a_link_fails_alone_among_those_written_together(
    store: ByteStore, tmp_path: Path
):
    (tmp_path / "root/v1/link").symlink_to(tmp_path / "away")
    before = content(tmp_path / "away")
    puts = [Put("v1/folder/a", b"x"), Put("v1/link/inner/b", b"x"), Put("v1/folder/c", b"x")]
    store.put_all(puts)
    assert [isinstance(put.error, DataSaveError) for put in puts] == [False, True, False]
    assert content(tmp_path / "away") == before
    assert store.get("v1/folder/c") == b"x"


def test_a_link_in_the_place_of_a_file_is_replaced_or_deleted_itself(
    store: ByteStore, tmp_path: Path
):
    link = tmp_path / "root/v1/folder/link"
    link.symlink_to(tmp_path / "away/file")
    with pytest.raises(DataLoadError, match="no link below the storage is followed"):
        store.get("v1/folder/link")
    assert store.put_if_absent("v1/folder/link", b"new") is False
    store.put("v1/folder/link", b"new")
    assert not link.is_symlink()
    link.unlink()
    link.symlink_to(tmp_path / "away")
    store.delete(["v1/folder/link"])
    assert not link.is_symlink()
    link.symlink_to(tmp_path / "away")
    store.delete_folder("v1/folder")
    assert sorted(content(tmp_path)) == [
        str(tmp_path / "away/file"),
        str(tmp_path / "away/inner/file"),
    ]


def socket_at(path: Path) -> None:
    os.chdir(path.parent)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


@pytest.mark.parametrize("make", [os.mkfifo, socket_at, Path.mkdir])
@pytest.mark.timeout(30)
def test_a_path_that_is_no_regular_file_is_neither_read_nor_waited_for(
    store: ByteStore,
    make: Callable[[Path], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "root/v1/folder/odd")
    with pytest.raises(DataLoadError, match="'v1/folder/odd': it is not a regular file"):
        store.get("v1/folder/odd")
    with pytest.raises(StorageError, match="it is not a regular file"):
        store.copy("v1/folder/odd", "v1/folder/copy")
    assert "v1/folder/inner/file" in {entry.key for entry in store.list("v1/folder")}
    store.delete_folder("v1/folder")
    assert not (tmp_path / "root/v1/folder").exists()


@pytest.mark.parametrize("key", ["../away/file", "v1/../../away/file", "/etc/hostname", "v1/.."])
def test_no_key_leads_out_of_the_root(store: ByteStore, key: str):
    # Keys come from stored documents, too.
    with pytest.raises(DataLoadError, match="not a path below the storage"):
        store.get(key)
    with pytest.raises(DataSaveError, match="not a path below the storage"):
        store.put(key, b"x")
    for delete in (store.delete_folder, lambda key: store.delete([key])):
        with pytest.raises(DataSaveError, match="not a path below the storage"):
            delete(key)


@pytest.mark.parametrize("filesystem", [fs.LocalFileSystem(), "fsspec"])
def test_the_whole_machine_is_no_storage(filesystem: fs.FileSystem | str):
    if filesystem == "fsspec":
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(LocalFileSystem()))
    with pytest.raises(ValueError, match="names no folder"):
        open_filesystem(filesystem, "", location="")


# ---- the default root


@pytest.fixture
def root(tmp_path: Path, every_way: None) -> Path:
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray/workflow_data"


def private(root: Path) -> LocalStore:
    return LocalStore(root, is_private=True)


def test_in_the_default_root_all_is_the_users_alone(root: Path):
    store = private(root)
    before = os.umask(0)
    try:
        store.put("v1/a/file", b"x")
        store.check_writable()
    finally:
        os.umask(before)
    assert store.get("v1/a/file") == b"x"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root, root / "v1", root / "v1/a")] == [
        0o700
    ] * 3
    assert stat.S_IMODE((root / "v1/a/file").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
@pytest.mark.parametrize("call", ["get", "put", "copy from", "list", "delete", "delete a folder"])
def test_a_default_root_that_others_may_write_to_is_not_used(root: Path, mode: int, call: str):
    private(root).put("v1/link/inner/file", b"x")
    root.chmod(mode)
    with pytest.raises(StorageError, match=r"other users may write there .* Name a storage with"):
        CALLS[call](private(root))
    with pytest.raises(DataSaveError, match="other users may write there"):
        private(root).check_writable()
    assert (root / "v1/link/inner/file").read_bytes() == b"x"


def test_a_default_root_that_is_replaced_between_two_calls_is_not_used(root: Path):
    store = private(root)
    store.put("v1/file", b"x")
    (root.parent / "theirs/v1").mkdir(parents=True)
    (root.parent / "theirs/v1/file").write_bytes(b"planted")
    root.rename(root.parent / "gone")
    root.symlink_to(root.parent / "theirs")
    with pytest.raises(DataLoadError, match="is a link or a file, not a folder"):
        store.get("v1/file")
    with pytest.raises(DataSaveError, match="is a link or a file, not a folder"):
        store.put("v1/file", b"new")
    assert (root.parent / "theirs/v1/file").read_bytes() == b"planted"


def test_the_default_root_is_private_however_it_is_named(monkeypatch: pytest.MonkeyPatch):
    for name in (
        "/tmp/ray/workflow_data",
        "/tmp/ray//workflow_data/",
        "/tmp/ray/../ray/workflow_data",
    ):
        assert LocalStore(name)._place.is_private
    assert not LocalStore("/tmp/ray/workflow_data/mine")._place.is_private


def test_a_root_that_all_users_may_write_to_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "root").mkdir()
    (tmp_path / "root").chmod(0o777)
    for _ in range(2):
        LocalStore(tmp_path / "root").put("v1/a", b"x")
    [warning] = caplog.records
    assert f"chmod o-w {tmp_path}/root" in warning.getMessage()


def test_where_the_system_forbids_to_open_at_once_it_is_done_part_by_part(tmp_path: Path):
    asked: list[bytes] = []

    def forbidden(number: object, folder: object, path: bytes, *_: object) -> int:
        asked.append(path)
        ctypes.set_errno(errno.EPERM)
        return -1

    at_once = partial(open_at_once, call=forbidden)
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1/a").write_bytes(b"x")
    (tmp_path / "link").symlink_to("v1")
    with closing(os.open(tmp_path, os.O_RDONLY)) as root:
        with open(open_below(root, "v1/a", os.O_RDONLY, at_once=at_once), "rb") as file:
            assert file.read() == b"x"
        with pytest.raises(OSError) as refused:  # noqa: PT011 its number says why
            open_below(root, "link/a", os.O_RDONLY, at_once=at_once)
    assert refused.value.errno == errno.ELOOP
    assert asked == [b"v1/a", b"link/a"]
