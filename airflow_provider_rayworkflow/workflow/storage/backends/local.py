"""Bytes in files of a local or network file system, durable against a power cut.

A write goes to a temporary file beside the target, is synced, and then renamed (or, for
create-if-absent, hard-linked, which fails if the name is taken); then the folder is synced. How
that is done for many at once is in :mod:`.file_writes`.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePath

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    DataSaveError,
    KeyNotFoundError,
)
from airflow_provider_rayworkflow.workflow.storage.backends.file_writes import MOST, FileWrites
from airflow_provider_rayworkflow.workflow.storage.backends.roots import (
    closing,
    open_below,
    open_file,
    open_folder,
    reason,
    split,
)
from airflow_provider_rayworkflow.workflow.storage.byte_store import Data, Entry, Put


class LocalStore:
    """A :class:`ByteStore` below one folder, which the first write creates.

    :param location: what opens the same storage elsewhere, if not the path.
    :param is_private: see :class:`Root`.
    """

    weakness = ""
    together = MOST
    reads_at_once = 1

    def __init__(
        self, root: str | os.PathLike[str], *, location: str = "", is_private: bool | None = None
    ) -> None:
        self._root = os.path.abspath(root)
        self._location = location or str(PurePath(root))
        self._writes = FileWrites(self._root, is_private=is_private)
        self._place = self._writes.place

    @property
    def uri(self) -> str:
        return self._location

    def check_writable(self) -> None:
        # The folder stays: making it is how a missing right shows.
        try:
            self._place.make()
            with self._place.opened() as root:
                probe = f".{uuid.uuid4().hex}.probe"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                os.close(open_below(root, probe, flags, self._place.file_mode))
                os.unlink(probe, dir_fd=root)
        except OSError as exc:
            raise DataSaveError(
                f"The workflow storage {self._root!r} can't be written: {reason(exc)}. "
                "Give a folder that this user may create and write."
            ) from exc

    def put(self, key: str, data: Data) -> None:
        self._put(Put(key, data))

    def put_if_absent(self, key: str, data: Data) -> bool:
        return self._put(Put(key, data, must_be_new=True))

    def _put(self, put: Put) -> bool:
        self.put_all([put])
        if put.error is not None:
            raise put.error
        return put.is_new

    def put_all(self, puts: Sequence[Put]) -> None:
        self._writes.write(puts)
        for put in puts:
            if isinstance(put.error, OSError):
                put.error = self._save_error(put.key, put.error)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            with self._place.opened() as root:
                descriptor = open_file(root, key)
            with closing(descriptor):
                return _read(descriptor, start, length)
        except FileNotFoundError:
            raise KeyNotFoundError(key) from None
        except OSError as exc:
            raise DataLoadError(
                f"Can't read {key!r}: {reason(exc)}.", key=key, is_transient=_is_transient(exc)
            ) from exc

    def copy(self, source: str, target: str) -> None:
        # A second name for the same bytes: objects are replaced and never written into.
        with self._errors(target):
            try:
                with self._place.opened() as root:
                    os.close(open_file(root, source))
                self._writes.link(source, target)
            except FileNotFoundError:
                raise KeyNotFoundError(source) from None
            except OSError:  # a file system without hard links, or too many of them
                self.put(target, self.get(source))

    def list(self, folder: str) -> Iterator[Entry]:
        try:
            with self._place.opened() as root:
                yield from self._list(root, folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as exc:
            raise _list_error(folder, exc) from exc

    def _list(self, root: int, folder: str) -> Iterator[Entry]:
        for name, size in _scan(root, folder):
            if name.startswith("."):
                continue  # a write that has not finished
            key = f"{folder}/{name}"
            if size is not None:
                yield Entry(key, size)
                continue
            try:
                yield from self._list(root, key)
            except DataLoadError as exc:
                yield Entry(f"{key}/", 0, problem=exc)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._errors(key), suppress(FileNotFoundError):
                folder, name = split(key)
                with self._place.folder(folder) as descriptor:
                    os.unlink(name, dir_fd=descriptor)

    def delete_folder(self, folder: str) -> None:
        self._writes.forget_folders(folder)
        with self._errors(folder), suppress(FileNotFoundError):
            parent, name = split(folder)
            with self._place.folder(parent) as descriptor:
                if stat.S_ISLNK(os.lstat(name, dir_fd=descriptor).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), folder)
                shutil.rmtree(name, dir_fd=descriptor)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._save_error(key, exc) from exc

    def _save_error(self, key: str, cause: OSError) -> DataSaveError:
        error = DataSaveError(
            f"Can't write {key!r} below {self._root!r}: {reason(cause)}.",
            key=key,
            is_transient=_is_transient(cause),
        )
        error.__cause__ = cause
        return error


def _scan(root: int, folder: str) -> Iterator[tuple[str, int | None]]:
    """Names and sizes of what is in a folder; a folder has none."""
    try:
        with closing(open_folder(root, folder)) as descriptor, os.scandir(descriptor) as files:
            yield from filter(None, map(_name_and_size, files))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise _list_error(folder, exc) from exc


def _list_error(folder: str, exc: OSError) -> DataLoadError:
    return DataLoadError(
        f"Can't list {folder!r}: {reason(exc)}.", key=folder, is_transient=_is_transient(exc)
    )


def _name_and_size(file: os.DirEntry[str]) -> tuple[str, int | None] | None:
    if file.is_dir(follow_symlinks=False):
        return file.name, None
    try:
        return file.name, file.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # deleted since
        return None


def _read(descriptor: int, start: int, length: int | None) -> bytes:
    wanted = os.fstat(descriptor).st_size - start if length is None else length
    parts = []
    while wanted > 0 and (part := os.pread(descriptor, wanted, start)):
        parts.append(part)  # of a large file, fewer bytes than were asked for
        start += len(part)
        wanted -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


# Of network file systems whose server restarts or moves.
_NO_ANSWER = frozenset(
    {errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EHOSTDOWN, errno.ENETUNREACH}
)


def _is_transient(exc: OSError) -> bool:
    return exc.errno in _NO_ANSWER
