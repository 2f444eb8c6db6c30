"""Bytes in files of a local or network file system, durable against a power cut.

A write goes to a temporary file beside the target, is synced, and then renamed (or, for
create-if-absent, hard-linked, which fails if the name is taken); then the folder is synced. How
that is done for many at once is in :mod:`.file_writes`.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    DataSaveError,
    KeyNotFoundError,
)
from airflow_provider_rayworkflow.workflow.storage.bytes import Data, Entry, Put
from airflow_provider_rayworkflow.workflow.storage.file_writes import MOST, FileWrites, sync_folder


class LocalStore:
    """A :class:`~.bytes.ByteStore` below one folder, which the first write creates.

    :param location: what opens the same storage elsewhere, if not the path.
    """

    weakness = ""
    together = MOST
    reads_at_once = 1

    def __init__(self, root: str | os.PathLike[str], *, location: str = "") -> None:
        self._root = Path(root)
        self._location = location or str(self._root)
        self._writes = FileWrites(os.path.abspath(self._root))

    @property
    def uri(self) -> str:
        return self._location

    def check_writable(self) -> None:
        # The folder stays: making it is how a missing right shows.
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / f".{uuid.uuid4().hex}.probe"
            probe.touch()
            probe.unlink()
        except OSError as exc:
            raise DataSaveError(
                f"The workflow storage {str(self._root)!r} can't be written: {exc.strerror}. "
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
            with open(self._root / key, "rb") as file:
                file.seek(start)
                return file.read(-1 if length is None else length)
        except FileNotFoundError:
            raise KeyNotFoundError(key) from None
        except OSError as exc:
            raise DataLoadError(
                f"Can't read {key!r}: {exc.strerror}.", key=key, is_transient=_is_transient(exc)
            ) from exc

    def copy(self, source: str, target: str) -> None:
        # A second name for the same bytes: objects are replaced and never written into.
        path = self._root / target
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        with self._errors(target):
            self._writes.make_folder(f"{self._writes.root}/{os.path.dirname(target)}")
            try:
                os.link(self._root / source, temporary)
            except FileNotFoundError:
                raise KeyNotFoundError(source) from None
            except OSError:  # a file system without hard links, or too many of them
                self.put(target, self.get(source))
                return
            os.replace(temporary, path)
            with suppress(FileNotFoundError):  # it stays where both were the same file already
                os.unlink(temporary)
            sync_folder(str(path.parent))

    def list(self, folder: str) -> Iterator[Entry]:
        pending = [folder]
        while pending:
            current = pending.pop()
            for file in self._scan(current):
                if file.name.startswith("."):
                    continue  # a write that has not finished
                key = f"{current}/{file.name}"
                if file.is_dir(follow_symlinks=False):
                    pending.append(key)
                    continue
                try:
                    size = file.stat().st_size
                except FileNotFoundError:
                    continue
                yield Entry(key, size)

    def _scan(self, folder: str) -> Sequence[os.DirEntry[str]]:
        try:
            # No `Path`: to put one together takes as long as to list a small folder.
            with os.scandir(f"{self._writes.root}/{folder}") as files:
                return tuple(files)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as exc:
            raise DataLoadError(
                f"Can't list {folder!r}: {exc.strerror}.",
                key=folder,
                is_transient=_is_transient(exc),
            ) from exc

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._errors(key), suppress(FileNotFoundError):
                os.unlink(self._root / key)

    def delete_folder(self, folder: str) -> None:
        path = self._root / folder
        self._writes.forget_folders(f"{self._writes.root}/{folder}")
        with self._errors(folder), suppress(FileNotFoundError):
            shutil.rmtree(path)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._save_error(key, exc) from exc

    def _save_error(self, key: str, cause: OSError) -> DataSaveError:
        error = DataSaveError(
            f"Can't write {key!r} below {str(self._root)!r}: {cause.strerror}.",
            key=key,
            is_transient=_is_transient(cause),
        )
        error.__cause__ = cause
        return error


# Of network file systems whose server restarts or moves.
_NO_ANSWER = frozenset(
    {errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EHOSTDOWN, errno.ENETUNREACH}
)


def _is_transient(exc: OSError) -> bool:
    return exc.errno in _NO_ANSWER
