"""A store that fails, or whose process dies, at one of its writes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from airflow_provider_rayworkflow.workflow.exceptions import DataSaveError
from airflow_provider_rayworkflow.workflow.storage.backends.wrapped import WrappedStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import (
    ByteStore,
    Data,
    Entry,
    Put,
    buffers,
    put_each,
)


class Killed(BaseException):
    """What every call gets after the death; no code of ours catches it."""


class FaultyStore(WrappedStore):
    """A :class:`ByteStore` on another one, which outlives it.

    A write is a ``put``, a ``put_if_absent``, a ``copy``, or the deletion of one object.

    :param at: the number of the write at which something happens, 0 for the first; -1 for never.
    :param how: ``"before"`` or ``"after"``: the process dies before or after that write;
        ``"torn"``: it dies in the middle of it, which leaves a part of the object under a
        temporary name; ``"error"``: the write fails and the process lives.
    """

    def __init__(self, store: ByteStore, *, at: int = -1, how: str = "after") -> None:
        super().__init__(store)
        self._at = at
        self._how = how
        self._lock = threading.Lock()
        self.writes = 0
        self.died: Future[None] = Future()

    def die(self) -> None:
        """Let the process die between two writes, if it lives."""
        with self._lock:
            if not self.died.done():
                self.died.set_result(None)

    def check_writable(self) -> None:
        self._check_alive()
        self._store.check_writable()

    def put(self, key: str, data: Data) -> None:
        self._write(key, lambda: self._store.put(key, data), data)

    def put_if_absent(self, key: str, data: Data) -> bool:
        return self._write(key, lambda: self._store.put_if_absent(key, data), data)

    def put_all(self, puts: Sequence[Put]) -> None:
        put_each(self, puts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._check_alive()
        return self._store.get(key, start, length)

    def copy(self, source: str, target: str) -> None:
        self._write(target, lambda: self._store.copy(source, target), self._store.get(source))

    def list(self, folder: str) -> Iterator[Entry]:
        self._check_alive()
        return self._store.list(folder)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._write(key, lambda k=key: self._store.delete([k]), b"")

    def delete_folder(self, folder: str) -> None:
        self.delete(sorted(entry.key for entry in self.list(folder)))

    def _check_alive(self) -> None:
        if self.died.done():
            raise Killed

    def _write(self, key: str, write: Callable[[], object], data: Data) -> object:
        with self._lock:  # one write at a time, so that nothing comes after the last one
            self._check_alive()
            number, self.writes = self.writes, self.writes + 1
            if number != self._at:
                return write()
            if self._how == "error":
                raise DataSaveError(f"Can't write {key!r}: No space left on device.", key=key)
            if self._how == "torn":
                self._tear(key, data)
            if self._how == "after":
                write()
            self.died.set_result(None)
            raise Killed

    def _tear(self, key: str, data: Data) -> None:
        content = b"".join(buffers(data))
        folder = (Path(self._store.uri) / key).parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".{os.urandom(8).hex()}.tmp").write_bytes(content[: len(content) // 2])
