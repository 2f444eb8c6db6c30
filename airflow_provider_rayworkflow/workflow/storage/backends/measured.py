"""Figures of what is written: how much, how long it took, what failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.storage.byte_store import (
    ByteStore,
    Data,
    Entry,
    Put,
    buffers,
)
from airflow_provider_rayworkflow.workflow.storage.keys import Kind, kind_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """One write.

    :ivar size: in bytes.
    :ivar seconds: until it was durable or had failed, waits between tries included.
    :ivar failed: it raised a :class:`StorageError`.
    """

    kind: Kind
    size: int
    seconds: float
    failed: bool = False


class MeasuredStore:
    """A :class:`ByteStore` that tells of its writes.

    :param on_write: told each one, in the thread that made it.
    """

    def __init__(self, store: ByteStore, on_write: Callable[[Write], None]) -> None:
        self._store = store
        self._on_write = on_write

    @property
    def uri(self) -> str:
        return self._store.uri

    @property
    def weakness(self) -> str:
        return self._store.weakness

    def check_writable(self) -> None:
        self._store.check_writable()

    def put(self, key: str, data: Data) -> None:
        with self._measuring(key, data):
            self._store.put(key, data)

    def put_if_absent(self, key: str, data: Data) -> bool:
        with self._measuring(key, data):
            return self._store.put_if_absent(key, data)

    @property
    def together(self) -> int:
        return self._store.together

    @property
    def reads_at_once(self) -> int:
        return self._store.reads_at_once

    def put_all(self, puts: Sequence[Put]) -> None:
        begun = time.monotonic()
        self._store.put_all(puts)
        for put in puts:
            self._tell(put.key, put.data, begun, failed=isinstance(put.error, StorageError))

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get(key, start, length)

    def copy(self, source: str, target: str) -> None:
        self._store.copy(source, target)  # its bytes are not written from here

    def list(self, folder: str) -> Iterator[Entry]:
        return self._store.list(folder)

    def delete(self, keys: Iterable[str]) -> None:
        self._store.delete(keys)

    def delete_folder(self, folder: str) -> None:
        self._store.delete_folder(folder)

    @contextmanager
    def _measuring(self, key: str, data: Data) -> Iterator[None]:
        begun, failed = time.monotonic(), False
        try:
            yield
        except StorageError:
            failed = True
            raise
        finally:
            self._tell(key, data, begun, failed=failed)

    def _tell(self, key: str, data: Data, begun: float, *, failed: bool) -> None:
        self._on_write(
            Write(
                kind=kind_of(key),
                size=sum(memoryview(buffer).nbytes for buffer in buffers(data)),
                seconds=time.monotonic() - begun,
                failed=failed,
            )
        )
