"""Files that are durable when they are written; those that are written together share steps.

A write goes to a temporary file beside the target, is synced, and gets its name; then its folder is
synced. Each step is a system call in which another thread may take the interpreter, and to come
back takes longer than the call. So one thread takes the steps for all that are written together,
and folders are synced once for all of them.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from typing import TypeVar

from airflow_provider_rayworkflow.workflow.storage.backends.roots import (
    Root,
    closing,
    open_below,
    open_folder,
    split,
)
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data, Put, buffers

T = TypeVar("T")

#: How many files are written together at most; so many are open at the same time.
MOST = 64

_ROOT = ""  # as a folder of itself
_SYNCS_AT_ONCE = 8  # more don't make a disk faster
# Where a sync takes less, it costs more to have threads for the others.
_SLOW_SYNC_S = 0.002
_MAX_BUFFERS_A_WRITE = 512  # below IOV_MAX, which is 1024 on Linux
# To copy so much takes 10 to 20 ms, which is long beside the start of a thread and a sync.
_LARGE_BYTES = 64 * 1024 * 1024


class FileWrites:
    """Writes below a folder, which the first of them creates.

    :param is_private: see :class:`Root`.
    :param slow_sync_s: if the first sync takes this long, the others run in parallel.
    :param large_bytes: a file of more bytes is synced while it is written.
    :ivar root: its absolute path.
    """

    def __init__(
        self,
        root: str,
        *,
        is_private: bool | None = None,
        slow_sync_s: float = _SLOW_SYNC_S,
        large_bytes: int = _LARGE_BYTES,
    ) -> None:
        self.root = root
        self.place = Root(root, is_private=is_private)
        self._slow_sync_s = slow_sync_s
        self._large_bytes = large_bytes
        self._known_folders: set[str] = set()
        self._threads: tuple[int, ThreadPoolExecutor] | None = None

    def write(self, puts: Sequence[Put]) -> None:
        """Write files, which are durable when this returns.

        Each one fails by itself, with an ``OSError`` as its error; then all of it is as before.
        """
        try:
            with self._opened() as root:
                self._write(root, [_Write(put) for put in puts])
        except OSError as exc:  # of the root itself
            for put in puts:
                put.error = put.error or exc

    def link(self, source: str, target: str) -> None:
        """Give a file a second name, in place of what has that; durable when this returns.

        :raises OSError: when that can't be done, also where files have one name only.
        """
        temporary = f".{uuid.uuid4().hex}.tmp"
        source_folder, source_name = split(source)
        target_folder, target_name = split(target)
        to_sync = {target_folder: None}
        with self._opened() as root:
            self._make_folder(root, target_folder, to_sync)
            with (
                closing(open_folder(root, source_folder)) as old,
                closing(open_folder(root, target_folder)) as new,
            ):
                names = {"src_dir_fd": old, "dst_dir_fd": new}
                os.link(source_name, temporary, **names, follow_symlinks=False)
                os.replace(temporary, target_name, src_dir_fd=new, dst_dir_fd=new)
                with suppress(FileNotFoundError):  # it stays where both were the same file already
                    os.unlink(temporary, dir_fd=new)
            for folder in to_sync:
                with closing(open_folder(root, folder)) as descriptor:
                    os.fsync(descriptor)

    def forget_folders(self, folder: str) -> None:
        """This folder is deleted, with all below it."""
        self._known_folders = {
            known for known in self._known_folders if not f"{known}/".startswith(f"{folder}/")
        }

    # ---- the steps

    def _opened(self) -> AbstractContextManager[int]:
        if _ROOT not in self._known_folders:
            self.place.make()
            self._known_folders.add(_ROOT)
        try:
            return self.place.opened()
        except FileNotFoundError:  # it was deleted since we made it
            self._known_folders = {_ROOT}
            self.place.make()
            return self.place.opened()

    def _write(self, root: int, writes: Sequence[_Write]) -> None:
        for write in writes:
            write.attempt(lambda write: self._begin(root, write))
        self._sync_each(writes, lambda write: write.attempt(_sync_file))
        self._give_names(root, writes)
        for write in writes:
            write.close()

    def _begin(self, root: int, write: _Write) -> None:
        split(write.put.key)  # raises at what is no path below the root
        self._make_folder(root, write.folder, write.folders)
        try:
            write.descriptor = self._create(root, write)
        except FileNotFoundError:  # another process deleted the folder since we made it
            self._known_folders = {_ROOT}
            self._make_folder(root, write.folder, write.folders)
            write.descriptor = self._create(root, write)
        _write_all(write.descriptor, write.put.data, self._large_bytes)

    def _create(self, root: int, write: _Write) -> int:
        path = f"{write.folder}/{write.temporary}" if write.folder else write.temporary
        return open_below(root, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self.place.file_mode)

    def _make_folder(self, root: int, folder: str, to_sync: dict[str, None]) -> None:
        if folder in self._known_folders:
            return
        parent = folder.rpartition("/")[0]
        # Also of a folder that is there: who made it may not have synced its parent yet.
        to_sync[parent] = None
        try:
            self._make_in(root, parent, folder)
        except FileNotFoundError:
            self._make_folder(root, parent, to_sync)
            self._make_in(root, parent, folder)

    def _make_in(self, root: int, parent: str, folder: str) -> None:
        with closing(open_folder(root, parent)) as descriptor, suppress(FileExistsError):
            os.mkdir(folder.rpartition("/")[2], self.place.folder_mode, dir_fd=descriptor)

    def _give_names(self, root: int, writes: Sequence[_Write]) -> None:
        """Name the files of each folder, then sync the folder."""
        folders: dict[str, list[_Write]] = {}
        for write in writes:
            for folder in write.folders:
                folders.setdefault(folder, [])
            folders[write.folder].append(write)
        errors: dict[str, OSError] = {}

        def finish(folder: str) -> None:
            try:
                with closing(open_folder(root, folder)) as descriptor:
                    for write in folders[folder]:
                        write.finish(descriptor)
                    os.fsync(descriptor)
            except OSError as exc:
                errors[folder] = exc

        self._sync_each(list(folders), finish)
        for write in writes:
            failed = [errors[folder] for folder in write.folders if folder in errors]
            write.put.error = write.put.error or (failed[0] if failed else None)
            if write.put.error is None:
                self._known_folders.add(write.folder)

    def _sync_each(self, items: Sequence[T], sync: Callable[[T], None]) -> None:
        begun = time.monotonic()
        for item in items[:1]:
            sync(item)
        if time.monotonic() - begun < self._slow_sync_s:
            for item in items[1:]:
                sync(item)
        else:
            self._sync_in_parallel(items[1:], sync)

    def _sync_in_parallel(self, items: Sequence[T], sync: Callable[[T], None]) -> None:
        def sync_share(share: Sequence[T]) -> None:
            for item in share:
                sync(item)

        shares = [items[start::_SYNCS_AT_ONCE] for start in range(min(len(items), _SYNCS_AT_ONCE))]
        under_way = [self._sync_threads().submit(sync_share, share) for share in shares[1:]]
        sync_share(items[::_SYNCS_AT_ONCE])
        wait(under_way)

    def _sync_threads(self) -> ThreadPoolExecutor:
        if self._threads is None or self._threads[0] != os.getpid():  # a fork has no threads
            threads = ThreadPoolExecutor(2 * (_SYNCS_AT_ONCE - 1), thread_name_prefix="sync")
            self._threads = os.getpid(), threads
        return self._threads[1]


class _Write:
    """A file on its way.

    :ivar folders: to sync.
    """

    def __init__(self, put: Put) -> None:
        self.put = put
        self.folder, _, self.name = put.key.rpartition("/")
        self.temporary = f".{uuid.uuid4().hex}.tmp"
        self.descriptor = -1
        self.folders: dict[str, None] = {self.folder: None}

    def attempt(self, step: Callable[[_Write], None]) -> None:
        """Take a step, unless one has failed: the others go on."""
        if self.put.error is None:
            try:
                step(self)
            except BaseException as exc:
                self.put.error = exc

    def finish(self, folder: int) -> None:
        """Give the file its name, and leave nothing else behind."""
        was_made = self.descriptor >= 0
        self.close()
        self.attempt(lambda write: write._give_name(folder))
        if was_made and (self.put.error is not None or self.put.must_be_new):
            with suppress(OSError):  # no reader looks at it
                os.unlink(self.temporary, dir_fd=folder)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _give_name(self, folder: int) -> None:
        if not self.put.must_be_new:
            os.replace(self.temporary, self.name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        try:
            os.link(
                self.temporary,
                self.name,
                src_dir_fd=folder,
                dst_dir_fd=folder,
                follow_symlinks=False,
            )
        except FileExistsError:
            self.put.is_new = False


def _write_all(descriptor: int, data: Data, large_bytes: int) -> None:
    pending = [memoryview(part).cast("B") for part in buffers(data) if len(part)]
    if sum(map(len, pending)) <= large_bytes:
        for batch in _batches(pending, large_bytes):
            _write_batch(descriptor, batch)
        return
    # The disk takes what is there while the rest is copied to the page cache.
    with ThreadPoolExecutor(1, thread_name_prefix="sync") as other:
        syncs = []
        for batch in _batches(pending, large_bytes):
            _write_batch(descriptor, batch)
            syncs.append(other.submit(os.fsync, descriptor))
    for sync in syncs:
        sync.result()  # an error is told once: a later sync may know nothing of it


def _batches(pending: Sequence[memoryview], large_bytes: int) -> Iterator[list[memoryview]]:
    batch: list[memoryview] = []
    size = 0
    for view in pending:
        for start in range(0, len(view), large_bytes):
            batch.append(view[start : start + large_bytes])
            size += len(batch[-1])
            if len(batch) == _MAX_BUFFERS_A_WRITE or size >= large_bytes:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _write_batch(descriptor: int, batch: list[memoryview]) -> None:
    while batch:
        written = os.writev(descriptor, batch)
        done = 0
        while done < len(batch) and written >= len(batch[done]):
            written -= len(batch[done])
            done += 1
        batch = batch[done:]
        if batch:
            batch[0] = batch[0][written:]


def _sync_file(write: _Write) -> None:
    os.fsync(write.descriptor)
