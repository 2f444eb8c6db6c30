"""Files that are durable when they are written; what many threads write at once takes its steps together.

A write goes to a temporary file beside the target, is synced, and gets its name; then its folder is
synced. Each step is a system call in which another thread may take the interpreter, and to come
back takes longer than the call. So one thread does the steps for all that wait, and folders are
synced once for all of them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from airflow_provider_rayworkflow.workflow.groups import Groups
from airflow_provider_rayworkflow.workflow.storage.bytes import Data, buffers

T = TypeVar("T")

#: How many groups are written at once: one takes its steps while another one waits for the disk.
GROUPS_AT_ONCE = 2

_MAX_GROUP = 64  # files, which are open at the same time
_LARGE_BYTES = 1024 * 1024  # written alone, so that nobody waits for it
_SYNCS_AT_ONCE = 8  # more don't make a disk faster
_MAX_BUFFERS_A_WRITE = 512  # below IOV_MAX, which is 1024 on Linux


class FileWrites:
    """Writes below a folder, which the first of them creates.

    :ivar root: its absolute path.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._known_folders: set[str] = set()
        self._groups = Groups(self._perform, at_once=GROUPS_AT_ONCE, most=_MAX_GROUP)
        self._threads: tuple[int, ThreadPoolExecutor] | None = None

    def write(self, path: str, data: Data, *, must_be_new: bool = False) -> bool:
        """Write a file, in place of an earlier one; durable when this returns.

        :param must_be_new: leave an earlier one as it is, and return False.
        :raises OSError: then all is as before.
        """
        wanted = _Write(path, data, must_be_new)
        if sum(memoryview(part).nbytes for part in buffers(data)) > _LARGE_BYTES:
            self._perform([wanted])
        else:
            self._groups.do(wanted)
        if wanted.error is not None:
            raise wanted.error
        return wanted.is_new

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

    # ---- one group

    def _perform(self, group: Sequence[_Write]) -> None:
        for write in group:
            write.attempt(self._begin)
        self._in_parallel(group, lambda write: write.attempt(_sync_file))
        for write in group:
            write.attempt(_give_name)
        folders = list(dict.fromkeys(folder for write in group for folder in write.folders))
        errors: dict[str, OSError] = {}

        def sync(folder: str) -> None:
            try:
                sync_folder(folder)
            except OSError as exc:
                errors[folder] = exc

        self._in_parallel(folders, sync)
        for write in group:
            write.clean_up()
            failed = [errors[folder] for folder in write.folders if folder in errors]
            write.error = write.error or (failed[0] if failed else None)
            if write.error is None:
                self._known_folders.add(os.path.dirname(write.path))

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
        _write_all(write.descriptor, write.data)

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

    def _in_parallel(self, items: Sequence[T], call: Callable[[T], None]) -> None:
        def call_each(share: Sequence[T]) -> None:
            for item in share:
                call(item)

        shares = [items[start::_SYNCS_AT_ONCE] for start in range(min(len(items), _SYNCS_AT_ONCE))]
        under_way = [self._sync_threads().submit(call_each, share) for share in shares[1:]]
        call_each(items[::_SYNCS_AT_ONCE])
        wait(under_way)

    def _sync_threads(self) -> ThreadPoolExecutor:
        if self._threads is None or self._threads[0] != os.getpid():  # a fork has no threads
            number = GROUPS_AT_ONCE * (_SYNCS_AT_ONCE - 1)
            self._threads = os.getpid(), ThreadPoolExecutor(number, thread_name_prefix="sync")
        return self._threads[1]


@dataclass(slots=True, eq=False)
class _Write:
    """A file on its way.

    :ivar folders: that are to be synced.
    """

    path: str
    data: Data
    must_be_new: bool
    is_new: bool = True
    error: BaseException | None = None
    temporary: str = ""
    descriptor: int = -1
    folders: dict[str, None] = field(default_factory=dict)

    def attempt(self, step: Callable[[_Write], None]) -> None:
        """Take a step, unless one has failed: the others of the group go on."""
        if self.error is None:
            try:
                step(self)
            except BaseException as exc:  # it belongs to the thread that wants this write
                self.error = exc

    def clean_up(self) -> None:
        """Leave nothing behind."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            if self.error is not None or self.must_be_new:
                os.unlink(self.temporary)


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _write_all(descriptor: int, data: Data) -> None:
    pending = [memoryview(part).cast("B") for part in buffers(data) if len(part)]
    start = 0
    while start < len(pending):
        written = os.writev(descriptor, pending[start : start + _MAX_BUFFERS_A_WRITE])
        while written:
            first = pending[start]
            if written < len(first):
                pending[start] = first[written:]
                break
            written -= len(first)
            start += 1


def _sync_file(write: _Write) -> None:
    os.fsync(write.descriptor)


def _give_name(write: _Write) -> None:
    if not write.must_be_new:
        os.replace(write.temporary, write.path)
        return
    try:
        os.link(write.temporary, write.path)
    except FileExistsError:
        write.is_new = False


def sync_folder(folder: str) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
