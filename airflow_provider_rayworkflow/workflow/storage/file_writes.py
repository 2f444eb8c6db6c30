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
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from airflow_provider_rayworkflow.workflow.storage.bytes import Data, Put, buffers

T = TypeVar("T")

#: How many files are written together at most; so many are open at the same time.
MOST = 64

_SYNCS_AT_ONCE = 8  # more don't make a disk faster
# Where a sync takes less, it costs more to have threads for the others.
_SLOW_SYNC_S = 0.002
_MAX_BUFFERS_A_WRITE = 512  # below IOV_MAX, which is 1024 on Linux
# To copy so much takes 10 to 20 ms, which is long beside the start of a thread and a sync.
_LARGE_BYTES = 64 * 1024 * 1024


class FileWrites:
    """Writes below a folder, which the first of them creates.

    :ivar root: its absolute path.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._known_folders: set[str] = set()
        self._threads: tuple[int, ThreadPoolExecutor] | None = None

    def write(self, puts: Sequence[Put]) -> None:
        """Write files, which are durable when this returns.

        Each one fails by itself, with an ``OSError`` as its error; then all of it is as before.
        """
        writes = [_Write(f"{self.root}/{put.key}", put) for put in puts]
        for write in writes:
            write.attempt(self._begin)
        self._sync_each(writes, lambda write: write.attempt(_sync_file))
        for write in writes:
            write.attempt(_give_name)
        self._sync_folders(writes)
        for write in writes:
            write.clean_up()

    def make_folder(self, folder: str) -> None:
        """Make a folder if there is none; it is durable when this returns.

        :raises OSError: when that can't be done.
        """
        made: dict[str, None] = {}
        self._make_folder(folder, made)
        for parent in made:
            sync_folder(parent)

    def forget_folders(self, folder: str) -> None:
        """This folder is deleted, with all below it."""
        self._known_folders = {
            known for known in self._known_folders if not f"{known}/".startswith(f"{folder}/")
        }

    # ---- the steps

    def _begin(self, write: _Write) -> None:
        folder = os.path.dirname(write.path)
        write.temporary = f"{folder}/.{uuid.uuid4().hex}.tmp"
        write.folders[folder] = None
        self._make_folder(folder, write.folders)
        try:
            write.descriptor = _create(write.temporary)
        except FileNotFoundError:  # somebody deleted the folder since we made it
            self._known_folders = set()
            self._make_folder(folder, write.folders)
            write.descriptor = _create(write.temporary)
        _write_all(write.descriptor, write.put.data)

    def _make_folder(self, folder: str, to_sync: dict[str, None]) -> None:
        if folder in self._known_folders:
            return
        # Also of a folder that is there: who made it may not have synced its parent yet.
        to_sync[os.path.dirname(folder)] = None
        try:
            if folder == self.root:
                os.makedirs(folder, exist_ok=True)
            else:
                os.mkdir(folder)
        except FileExistsError:
            pass
        except FileNotFoundError:
            self._make_folder(os.path.dirname(folder), to_sync)
            with suppress(FileExistsError):
                os.mkdir(folder)

    def _sync_folders(self, writes: Sequence[_Write]) -> None:
        errors: dict[str, OSError] = {}

        def sync(folder: str) -> None:
            try:
                sync_folder(folder)
            except OSError as exc:
                errors[folder] = exc

        folders = dict.fromkeys(folder for write in writes for folder in write.folders)
        self._sync_each(list(folders), sync)
        for write in writes:
            failed = [errors[folder] for folder in write.folders if folder in errors]
            write.put.error = write.put.error or (failed[0] if failed else None)
            if write.put.error is None:
                self._known_folders.add(os.path.dirname(write.path))

    def _sync_each(self, items: Sequence[T], sync: Callable[[T], None]) -> None:
        begun = time.monotonic()
        for item in items[:1]:
            sync(item)
        if time.monotonic() - begun < _SLOW_SYNC_S:
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


@dataclass(slots=True, eq=False)
class _Write:
    """A file on its way.

    :ivar folders: that are to be synced.
    """

    path: str
    put: Put
    temporary: str = ""
    descriptor: int = -1
    folders: dict[str, None] = field(default_factory=dict)

    def attempt(self, step: Callable[[_Write], None]) -> None:
        """Take a step, unless one has failed: the others go on."""
        if self.put.error is None:
            try:
                step(self)
            except BaseException as exc:
                self.put.error = exc

    def clean_up(self) -> None:
        """Leave nothing behind."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            if self.put.error is not None or self.put.must_be_new:
                with suppress(OSError):  # no reader looks at it
                    os.unlink(self.temporary)


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _write_all(descriptor: int, data: Data) -> None:
    pending = [memoryview(part).cast("B") for part in buffers(data) if len(part)]
    if sum(map(len, pending)) <= _LARGE_BYTES:
        for batch in _batches(pending):
            _write_batch(descriptor, batch)
        return
    # The disk takes what is there while the rest is copied to the page cache.
    with ThreadPoolExecutor(1, thread_name_prefix="sync") as other:
        syncs = []
        for batch in _batches(pending):
            _write_batch(descriptor, batch)
            syncs.append(other.submit(os.fsync, descriptor))
    for sync in syncs:
        sync.result()  # an error is told once: a later sync may know nothing of it


def _batches(pending: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    batch: list[memoryview] = []
    size = 0
    for view in pending:
        for start in range(0, len(view), _LARGE_BYTES):
            batch.append(view[start : start + _LARGE_BYTES])
            size += len(batch[-1])
            if len(batch) == _MAX_BUFFERS_A_WRITE or size >= _LARGE_BYTES:
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


def _give_name(write: _Write) -> None:
    if not write.put.must_be_new:
        os.replace(write.temporary, write.path)
        return
    try:
        os.link(write.temporary, write.path)
    except FileExistsError:
        write.put.is_new = False


def sync_folder(folder: str) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
